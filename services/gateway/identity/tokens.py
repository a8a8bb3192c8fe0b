"""Tokens of our own: how they look, and the file that says whose they are.

A line of the file is ``SUBJECT ROLE sha256:HEX [expires=TIME]``; empty lines and those that begin with ``#`` don't count. A token
has 256 random bits, so nobody finds it by trying, whatever the hash; a slow hash, made for passwords, would only slow each call
down. The file shows no token to whoever reads it.
"""

import datetime
import hashlib
import hmac
import secrets
from dataclasses import dataclass
from pathlib import Path

from services.common.errors import InvalidOption, Unauthenticated
from services.common.login import checked_subject
from services.common.watched import Watched
from services.gateway.identity.caller import Caller, Role
from services.gateway.keys import LOCAL

PREFIX = "sv2_"
"""Of every token, so that scanners for secrets know one when they see it."""

_HASH, _EXPIRES = "sha256:", "expires="


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenEntry:
    """A token that somebody has."""

    subject: str
    """Whose it is."""

    role: Role
    """What they may do."""

    sha256: bytes
    """Of the token."""

    expires_at: datetime.datetime | None = None
    """When it ends; None: never."""


class TokenFile:
    """Who may come in by a file of hashes; it is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        """Raises SettingsError: the file can't be used."""
        self._entries = Watched([path], parse_tokens)

    async def identify(self, token: str) -> Caller | None:
        """Whose token it is; None: nobody's here.

        Raises:
            Unauthenticated: it has expired.
        """
        digest, found = hashlib.sha256(token.encode()).digest(), None
        # Every entry is looked at, in the same time whatever is in it.
        for entry in self._entries.get():
            if hmac.compare_digest(entry.sha256, digest):
                found = entry
        if found is None:
            return None
        if found.expires_at is not None and found.expires_at <= datetime.datetime.now(datetime.UTC):
            raise Unauthenticated(f"The token has expired on {found.expires_at:%Y-%m-%d %H:%M} UTC; ask for a new one.")
        return Caller(subject=found.subject, role=found.role)


def new_token() -> str:
    """A token that nobody has yet."""
    return PREFIX + secrets.token_urlsafe(32)


def token_line(subject: str, role: Role, token: str, expires_at: datetime.datetime | None = None) -> str:
    """The line of the file that lets a token in.

    Raises:
        InvalidOption: the subject can't be one.
    """
    words = [checked_owner(subject), role.value, _HASH + hashlib.sha256(token.encode()).hexdigest()]
    return " ".join(words + ([_EXPIRES + f"{expires_at:%Y-%m-%dT%H:%M:%SZ}"] if expires_at else []))


def checked_owner(subject: str) -> str:
    """``subject`` if it can be somebody's own name.

    Raises:
        InvalidOption: it can't, or it stands for callers without authentication.
    """
    if subject == LOCAL:
        raise InvalidOption(f"{LOCAL} stands for callers without authentication; choose another subject.", field="subject")
    return checked_subject(subject)


def parse_tokens(data: bytes) -> tuple[TokenEntry, ...]:
    """The entries of a token file. Raises ValueError: a line is wrong, or a token is there twice."""
    found: dict[bytes, TokenEntry] = {}
    for number, line in enumerate(data.decode(errors="replace").splitlines(), start=1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        try:
            entry = _entry(line.split())
        except (ValueError, InvalidOption) as error:
            raise ValueError(f"line {number} is not SUBJECT ROLE sha256:HEX [expires=TIME] ({error})") from error
        if entry.sha256 in found:
            raise ValueError(f"line {number} has a token that an earlier line has, too")
        found[entry.sha256] = entry
    return tuple(found.values())


def _entry(words: list[str]) -> TokenEntry:
    if not 3 <= len(words) <= 4:
        raise ValueError(f"{len(words)} words")
    subject, role, digest = words[:3]
    if not digest.startswith(_HASH) or len(digest) != len(_HASH) + 64:
        raise ValueError("no SHA-256")
    return TokenEntry(
        subject=checked_owner(subject),
        role=Role(role),
        sha256=bytes.fromhex(digest.removeprefix(_HASH)),
        expires_at=_time(words[3]) if len(words) == 4 else None,
    )


def _time(word: str) -> datetime.datetime:
    if not word.startswith(_EXPIRES):
        raise ValueError(f"{word} instead of {_EXPIRES}TIME")
    time = datetime.datetime.fromisoformat(word.removeprefix(_EXPIRES))
    return time if time.tzinfo else time.replace(tzinfo=datetime.UTC)
