"""Errors of ours as HTTP answers, in OpenAI's form: ``{"error": {"message", "type", "code", "param"}}``."""

import logging
from typing import Any

from starlette.responses import JSONResponse

from services.common.errors import InternalError, ServiceError
from services.common.http.status import challenge_header, http_status, retry_header
from services.common.rpc.status import INTERNAL_TEXT
from services.gateway.rest.decoder import param_of

_log = logging.getLogger(__name__)
_INTERNAL = 500
_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
NO_STORE = {"Cache-Control": "no-store"}
"""Of every answer that is not a file."""


def error_body(error: ServiceError) -> dict[str, Any]:
    """An error as a JSON object; ``code`` is the name of its class."""
    status = http_status(type(error))
    kind = _TYPES.get(status, "server_error" if status >= _INTERNAL else "invalid_request_error")
    param = param_of(error.field) if error.field else None
    return {"error": {"message": error.message, "type": kind, "code": type(error).__name__, "param": param}}


def error_answer(error: Exception) -> JSONResponse:
    """The answer that tells an error. One that is ours is logged, and its details are told to nobody."""
    if not isinstance(error, ServiceError) or http_status(type(error)) == _INTERNAL:
        _log.error("a request failed inside the service", exc_info=error)
        error = InternalError(INTERNAL_TEXT)
    headers = NO_STORE | retry_header(error) | challenge_header(error)
    return JSONResponse(error_body(error), status_code=http_status(type(error)), headers=headers)


def plain_answer(status: int, message: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """What HTTP itself refuses: no such route, or another method."""
    body = {"message": message, "type": "invalid_request_error", "code": "NotFound" if status == 404 else None, "param": None}
    return JSONResponse({"error": body}, status_code=status, headers=NO_STORE | (headers or {}))
