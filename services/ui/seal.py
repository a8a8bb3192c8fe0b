"""Sign-in cookies: a token, sealed so that what leaks from a browser is worth nothing at the gateway, and ends after a while."""

import base64
import hashlib
import json
import secrets
from pathlib import Path
from typing import NamedTuple

from cryptography.fernet import Fernet, InvalidToken

from services.common.watched import Watched

_LEAST_KEY_BYTES = 32


class SignedIn(NamedTuple):
    """What a cookie holds."""

    token: str
    """Of the gateway."""

    name: str
    """Its subject."""


class Seal:
    """Makes cookies and opens them."""

    def __init__(self, key_file: str, session_s: float) -> None:
        """``key_file`` empty: a key of this process, so that everybody signs in again after a restart. Raises SettingsError."""
        self._session_s = session_s
        self._own = _fernet(secrets.token_hex(_LEAST_KEY_BYTES).encode())
        self._shared = Watched([Path(key_file)], _fernet) if key_file else None

    def close(self, content: SignedIn) -> str:
        """The cookie's value."""
        return self._fernet().encrypt(json.dumps(content).encode()).decode()

    def open(self, cookie: str) -> SignedIn | None:
        """What a cookie holds; None: it is not from here, or too old."""
        try:
            token, name = json.loads(self._fernet().decrypt(cookie.encode(), ttl=int(self._session_s)))
        except (InvalidToken, ValueError):
            return None
        return SignedIn(str(token), str(name))

    def _fernet(self) -> Fernet:
        return self._shared.get() if self._shared else self._own


def _fernet(key: bytes) -> Fernet:
    """Raises ValueError: the key is too short to be random."""
    if len(key.strip()) < _LEAST_KEY_BYTES:
        raise ValueError(f"the key must have at least {_LEAST_KEY_BYTES} bytes, as `openssl rand -base64 48` writes them")
    return Fernet(base64.urlsafe_b64encode(hashlib.sha256(key.strip()).digest()))
