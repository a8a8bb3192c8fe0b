"""Signatures of webhooks, as Standard Webhooks describes them (https://www.standardwebhooks.com). Pure."""

import base64
import hashlib
import hmac
from collections.abc import Sequence

_PREFIX = "whsec_"
_LEAST_BYTES, _MOST_BYTES = 24, 64


def parse_secrets(text: bytes) -> tuple[bytes, ...]:
    """The keys in a file: ``whsec_`` and base64 of 24 to 64 bytes, one a line; the first is the newest.

    Raises:
        ValueError: there is none, or one can't be used.
    """
    lines = [line.strip() for line in text.decode("ascii", "replace").splitlines()]
    found = tuple(_key(line) for line in lines if line and not line.startswith("#"))
    if not found:
        raise ValueError("there is no secret in it; write one with: echo whsec_$(openssl rand -base64 32)")
    return found


def signed_headers(event_id: str, timestamp_s: int, body: bytes, keys: Sequence[bytes]) -> list[tuple[str, str]]:
    """The headers that tell what a request is, when it was sent, and by whom; one signature for each key."""
    signed = f"{event_id}.{timestamp_s}.".encode() + body
    signatures = (base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode() for key in keys)
    return [
        ("webhook-id", event_id),
        ("webhook-timestamp", str(timestamp_s)),
        ("webhook-signature", " ".join(f"v1,{signature}" for signature in signatures)),
    ]


def _key(line: str) -> bytes:
    try:
        key = base64.b64decode(line.removeprefix(_PREFIX), validate=True)
    except ValueError as error:
        raise ValueError("a secret in it is not whsec_ and base64") from error
    if not line.startswith(_PREFIX) or not _LEAST_BYTES <= len(key) <= _MOST_BYTES:
        raise ValueError(f"a secret in it is not {_PREFIX} and base64 of {_LEAST_BYTES} to {_MOST_BYTES} bytes")
    return key
