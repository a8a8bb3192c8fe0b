"""Errors of ours as HTTP answers: a status, and JSON with a sentence."""

from starlette.responses import JSONResponse

from services.common import errors
from services.common.errors import ServiceError
from services.ui.words import error_words

_STATUSES: dict[type[ServiceError], int] = {
    errors.InvalidInput: 400,
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.WrongState: 409,
    errors.JobCancelled: 409,
    errors.RangeOutOfBounds: 416,
    errors.TooLarge: 413,
    errors.QueueFull: 429,
    errors.StoreFull: 507,
    errors.Unavailable: 503,
    errors.DeadlinePassed: 504,
    errors.NotSupported: 501,
    errors.ServiceError: 500,
}


def http_status(error: type[ServiceError]) -> int:
    """The HTTP status of an error class: its own, or that of the nearest class above it."""
    return next(_STATUSES[cls] for cls in error.__mro__ if cls in _STATUSES)


def error_answer(error: ServiceError) -> JSONResponse:
    """The answer that tells ``error``; retryable ones say when to come back."""
    body = {"error": error_words(error), "reason": type(error).__name__, "retryable": error.retryable}
    headers = {"Cache-Control": "no-store"}
    if error.retry_after_s is not None:
        headers["Retry-After"] = str(max(1, round(error.retry_after_s)))
    return JSONResponse(body, status_code=http_status(type(error)), headers=headers)
