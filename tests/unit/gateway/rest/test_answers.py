import json

import pytest

from services.common import errors
from services.gateway.rest.answers import error_answer


@pytest.mark.parametrize(
    ("error", "status", "kind"),
    [
        (errors.InvalidOption("No.", field="request.target.scale"), 400, "invalid_request_error"),
        (errors.Unauthenticated("Who?"), 401, "authentication_error"),
        (errors.PermissionDenied("No."), 403, "permission_error"),
        (errors.QueueFull("Later.", retry_after_s=30), 429, "rate_limit_error"),
        (errors.StoreUnavailable("Later."), 503, "server_error"),
    ],
)
def test_an_error_is_told_as_openai_tells_it(error: errors.ServiceError, status: int, kind: str):
    answer = error_answer(error)
    body = json.loads(bytes(answer.body))["error"]
    assert (answer.status_code, body["type"], body["code"], body["message"]) == (
        status,
        kind,
        type(error).__name__,
        error.message,
    )
    assert body["param"] == ("scale" if error.field else None)
    assert answer.headers.get("retry-after") == ("30" if error.retry_after_s else None)
    assert ("www-authenticate" in answer.headers) == (status == 401)


@pytest.mark.parametrize("error", [RuntimeError("secret"), errors.InternalError("secret")])
def test_what_is_our_fault_is_logged_and_not_told(error: Exception, caplog: pytest.LogCaptureFixture):
    answer = error_answer(error)
    assert answer.status_code == 500
    assert b"secret" not in bytes(answer.body)
    assert "secret" in caplog.text
