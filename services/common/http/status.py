"""Errors of ours to HTTP status codes; what ``rpc/status.py`` is for gRPC. Pure."""

from services.common import errors
from services.common.errors import ServiceError

_STATUSES: dict[type[ServiceError], int] = {
    errors.InvalidInput: 400,
    errors.NotFound: 404,
    errors.AlreadyExists: 409,
    errors.WrongState: 409,
    errors.JobCancelled: 409,
    errors.RangeOutOfBounds: 416,
    errors.Unauthenticated: 401,
    errors.PermissionDenied: 403,
    errors.TooLarge: 413,
    errors.LoginsLimited: 429,
    errors.QuotaExceeded: 429,
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


def challenge_header(error: ServiceError) -> dict[str, str]:
    """``WWW-Authenticate``, where somebody has to say who they are."""
    return {"WWW-Authenticate": 'Bearer realm="seedvr2"'} if isinstance(error, errors.Unauthenticated) else {}


def retry_header(error: ServiceError) -> dict[str, str]:
    """``Retry-After`` in whole seconds, where a retry makes sense."""
    return {} if error.retry_after_s is None else {"Retry-After": str(max(1, round(error.retry_after_s)))}
