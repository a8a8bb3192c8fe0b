"""What an S3 server, or the way to it, says when something goes wrong, and which of our errors that is."""

import ssl
import time
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from xml.etree.ElementTree import ParseError

import urllib3.exceptions
from minio.error import InvalidResponseError, MinioException, S3Error, ServerError
from urllib3 import BaseHTTPResponse

from services.common.errors import NotFound, RangeOutOfBounds, ServiceError, StoreFull, StoreUnavailable, WrongState

FULL_TEXT = "The object store is full: delete jobs or uploads that are no longer needed, or give it more space."


_MOST_AHEAD_S = 300.0
"""Servers take a quarter of an hour; less is on the safe side where a refusal has another reason, too."""


class Kind(Enum):
    """What to do about it."""

    MISSING = auto()
    """There is no such object, or multipart upload."""

    CHANGED = auto()
    """A condition of a write, or of a read, was not met."""

    OUTSIDE = auto()
    """The object has no such bytes."""

    FULL = auto()
    """No space, or no quota, is left."""

    NO_KEYS = auto()
    """No credentials can be had."""

    REFUSED = auto()
    """The credentials don't do, or don't suffice."""

    CLOCK = auto()
    """This machine's clock and the server's differ so much that it takes no request; clocks are set right again."""

    UNTRUSTED = auto()
    """The server's certificate is not signed by whom we trust."""

    ELSEWHERE = auto()
    """The bucket is in another region than requests are signed for."""

    NO_BUCKET = auto()
    """The bucket isn't there."""

    PASSING = auto()
    """Another try can go well."""

    OTHER = auto()
    """The server can't or won't."""


AGAIN = frozenset({Kind.PASSING, Kind.CLOCK})
"""What may be over at the next try."""

ANSWERS = frozenset({Kind.MISSING, Kind.CHANGED, Kind.OUTSIDE})
"""What is no failure of the server or of the way to it."""

_CODES = {
    "NoSuchKey": Kind.MISSING, "NoSuchUpload": Kind.MISSING, "NoSuchVersion": Kind.MISSING, "NotFound": Kind.MISSING,
    "PermanentRedirect": Kind.ELSEWHERE, "AuthorizationHeaderMalformed": Kind.ELSEWHERE, "NoSuchBucket": Kind.NO_BUCKET,
    "InvalidRange": Kind.OUTSIDE, "PreconditionFailed": Kind.CHANGED,
    "XMinioStorageFull": Kind.FULL, "XMinioAdminBucketQuotaExceeded": Kind.FULL, "QuotaExceeded": Kind.FULL,
    "InsufficientStorage": Kind.FULL, "InsufficientCapacity": Kind.FULL,
    "AccessDenied": Kind.REFUSED, "InvalidAccessKeyId": Kind.REFUSED, "SignatureDoesNotMatch": Kind.REFUSED,
    "ExpiredToken": Kind.REFUSED, "InvalidToken": Kind.REFUSED, "InvalidTokenId": Kind.REFUSED, "AccountProblem": Kind.REFUSED,
    "RequestTimeTooSkewed": Kind.CLOCK, "AllAccessDisabled": Kind.REFUSED,
    "SlowDown": Kind.PASSING, "RequestTimeout": Kind.PASSING, "InternalError": Kind.PASSING, "ServiceUnavailable": Kind.PASSING,
    "OperationAborted": Kind.PASSING, "ConditionalRequestConflict": Kind.PASSING, "BadDigest": Kind.PASSING,
    "IncompleteBody": Kind.PASSING, "TooManyRequests": Kind.PASSING, "XMinioServerNotInitialized": Kind.PASSING,
}  # fmt: skip
_STATUSES = {
    403: Kind.REFUSED, 401: Kind.REFUSED, 404: Kind.MISSING, 412: Kind.CHANGED, 416: Kind.OUTSIDE, 507: Kind.FULL,
    408: Kind.PASSING, 429: Kind.PASSING, 500: Kind.PASSING, 502: Kind.PASSING, 503: Kind.PASSING, 504: Kind.PASSING,
}  # fmt: skip


class Damaged(Exception):
    """Bytes arrived that are not those that were stored."""


ERRORS = (MinioException, urllib3.exceptions.HTTPError, OSError, ValueError, ParseError, Damaged)
"""Everything that a call of the client can raise: its own errors, the network's, a bad answer, a key file that is gone."""


def kind_of(error: BaseException) -> Kind:
    """What to do about an error of the client."""
    if isinstance(error, S3Error):
        kind = _CODES.get(error.code or "") or _STATUSES.get(error.response.status, Kind.OTHER)
        # An answer without a body, to HEAD, can't say more than that the request is refused.
        return Kind.CLOCK if kind is Kind.REFUSED and _ahead_s(error.response) > _MOST_AHEAD_S else kind
    if isinstance(error, ServerError):
        return _STATUSES.get(error.status_code, Kind.OTHER)
    if isinstance(error, InvalidResponseError):
        return _STATUSES.get(error._code, Kind.OTHER)
    if isinstance(error, urllib3.exceptions.SSLError) and isinstance(error.args[0], ssl.SSLCertVerificationError):
        return Kind.UNTRUSTED
    if isinstance(error, ValueError) and not isinstance(error, UnicodeDecodeError):
        # All that providers of credentials say.
        return Kind.NO_KEYS
    return Kind.PASSING


def our_error(error: BaseException) -> ServiceError:
    """What callers are told; without keys and addresses of the inside."""
    match kind_of(error):
        case Kind.MISSING:
            return NotFound("No such object in the object store.")
        case Kind.CHANGED:
            return WrongState("The object was changed meanwhile.")
        case Kind.OUTSIDE:
            return RangeOutOfBounds("The object doesn't have the bytes that were asked for.")
        case Kind.FULL:
            return StoreFull(FULL_TEXT, retry_after_s=60)
        case Kind.NO_KEYS:
            return _unavailable("The gateway has no keys for the object store: see SEEDVR2_S3_ACCESS_KEY_FILE.", 30)
        case Kind.REFUSED:
            return _unavailable(f"The object store refuses the gateway ({_name(error)}): check its key and what it may do.", 30)
        case Kind.CLOCK:
            return _unavailable("The object store refuses the gateway, whose clock is wrong: set the machine's clock.", 30)
        case Kind.NO_BUCKET:
            return _unavailable("The object store's bucket isn't there: create it, or correct its name.", 30)
        case Kind.ELSEWHERE:
            return _unavailable("The object store's bucket is in another region: correct SEEDVR2_S3_REGION.", 30)
        case Kind.UNTRUSTED:
            return _unavailable("The object store's certificate is not trusted: name its authority in SEEDVR2_S3_CA_FILE.", 30)
        case Kind.OTHER:
            return _unavailable(f"The object store refused a request ({_name(error)}).", 30)
    return _unavailable(f"The object store doesn't answer as it should ({_name(error)}).", 5)


def _ahead_s(response: BaseHTTPResponse) -> float:
    """Seconds between this machine's clock and the server's; 0 where it doesn't tell."""
    try:
        return abs(time.time() - parsedate_to_datetime(response.headers["date"]).timestamp())
    except (KeyError, ValueError):
        return 0.0


def _unavailable(text: str, retry_after_s: float) -> StoreUnavailable:
    return StoreUnavailable(text, retry_after_s=retry_after_s)


def _name(error: BaseException) -> str:
    if isinstance(error, S3Error) and error.code:
        return error.code
    return type(error).__name__
