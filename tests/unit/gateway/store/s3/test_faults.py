import ssl
import time
from email.utils import formatdate
from typing import Any
from xml.etree import ElementTree

import pytest
import urllib3
from minio.error import InvalidResponseError, S3Error, ServerError

from services.common.errors import NotFound, RangeOutOfBounds, ServiceError, StoreFull, StoreUnavailable, WrongState
from services.gateway.store.s3.faults import ERRORS, Damaged, Kind, kind_of, our_error


def said(code: str, status: int = 400) -> S3Error:
    return S3Error(urllib3.HTTPResponse(status=status), code, "secret words", None, None, None)


def broken_answer() -> Exception:
    try:
        ElementTree.fromstring("<Error><Code>Slo")
    except ElementTree.ParseError as error:
        return error
    raise AssertionError


@pytest.mark.parametrize(
    ("error", "kind", "ours"),
    [
        (said("NoSuchKey", 404), Kind.MISSING, NotFound),
        (said("NoSuchUpload", 404), Kind.MISSING, NotFound),
        (said("NoSuchBucket", 404), Kind.NO_BUCKET, StoreUnavailable),
        (said("AuthorizationHeaderMalformed", 400), Kind.ELSEWHERE, StoreUnavailable),
        (said("PreconditionFailed", 412), Kind.CHANGED, WrongState),
        (said("InvalidRange", 416), Kind.OUTSIDE, RangeOutOfBounds),
        (said("XMinioStorageFull", 507), Kind.FULL, StoreFull),
        (said("QuotaExceeded", 403), Kind.FULL, StoreFull),
        (said("AccessDenied", 403), Kind.REFUSED, StoreUnavailable),
        (said("SomethingNew", 403), Kind.REFUSED, StoreUnavailable),
        (said("RequestTimeTooSkewed", 403), Kind.CLOCK, StoreUnavailable),
        (said("SlowDown", 503), Kind.PASSING, StoreUnavailable),
        (said("ConditionalRequestConflict", 409), Kind.PASSING, StoreUnavailable),
        (said("InvalidPart", 400), Kind.OTHER, StoreUnavailable),
        (ServerError("x", 412), Kind.CHANGED, WrongState),
        (ServerError("x", 502), Kind.PASSING, StoreUnavailable),
        (InvalidResponseError(404, "text/plain", "x"), Kind.MISSING, NotFound),
        (InvalidResponseError(503, "text/html", "x"), Kind.PASSING, StoreUnavailable),
        (InvalidResponseError(418, None, None), Kind.OTHER, StoreUnavailable),
        (urllib3.exceptions.ProtocolError("x"), Kind.PASSING, StoreUnavailable),
        (urllib3.exceptions.SSLError(ssl.SSLCertVerificationError("x")), Kind.UNTRUSTED, StoreUnavailable),
        (urllib3.exceptions.SSLError("EOF"), Kind.PASSING, StoreUnavailable),
        (ConnectionResetError(), Kind.PASSING, StoreUnavailable),
        (broken_answer(), Kind.PASSING, StoreUnavailable),
        (UnicodeDecodeError("utf-8", b"x", 0, 1, "x"), Kind.PASSING, StoreUnavailable),
        (ValueError("no provider"), Kind.NO_KEYS, StoreUnavailable),
        (Damaged("x"), Kind.PASSING, StoreUnavailable),
    ],
    ids=lambda value: f"{type(value).__name__} {getattr(value, 'code', '')}" if isinstance(value, Exception) else "",
)
def test_whatever_is_said_has_a_kind_and_an_error_of_ours(error: Any, kind: Kind, ours: type[ServiceError]):
    assert isinstance(error, ERRORS)
    assert kind_of(error) is kind
    told = our_error(error)
    assert type(told) is ours
    assert told.message.endswith(".")
    assert "secret words" not in told.message


@pytest.mark.parametrize(
    ("code", "status", "ahead_s", "kind"),
    [
        ("AccessDenied", 403, 3600, Kind.CLOCK),
        ("AccessDenied", 403, -3600, Kind.CLOCK),
        ("AccessDenied", 403, 10, Kind.REFUSED),
        ("NoSuchKey", 404, 3600, Kind.MISSING),
    ],
)
def test_a_refusal_by_a_server_whose_clock_is_another_is_about_the_clock(code: str, status: int, ahead_s: float, kind: Kind):
    answer = urllib3.HTTPResponse(status=status, headers={"Date": formatdate(time.time() + ahead_s, usegmt=True)})
    assert kind_of(S3Error(answer, code, None, None, None, None)) is kind


def test_a_refusal_with_a_date_that_can_not_be_read_is_a_refusal():
    answer = urllib3.HTTPResponse(status=403, headers={"Date": "once"})
    assert kind_of(S3Error(answer, "AccessDenied", None, None, None, None)) is Kind.REFUSED
