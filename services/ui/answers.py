"""Errors of ours as HTTP answers: a status, and JSON with a sentence."""

from starlette.responses import JSONResponse

from services.common.errors import ServiceError
from services.common.http.status import challenge_header, http_status, retry_header
from services.ui.words import error_words


def error_answer(error: ServiceError) -> JSONResponse:
    """The answer that tells ``error``; retryable ones say when to come back."""
    body = {"error": error_words(error), "reason": type(error).__name__, "retryable": error.retryable}
    headers = {"Cache-Control": "no-store", **retry_header(error), **challenge_header(error)}
    return JSONResponse(body, status_code=http_status(type(error)), headers=headers)
