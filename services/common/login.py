"""Who makes a call: the bearer token, and for whom where its role may act for others, as metadata of gRPC or headers of HTTP."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from services.common.errors import InvalidOption
from services.common.watched import Watched

AUTHORIZATION, SUBJECT, FORWARDED_FOR = "authorization", "x-seedvr2-subject", "x-forwarded-for"
"""Names of what carries it, in small letters as gRPC has them."""

_SUBJECT = re.compile(r"[!-~]{1,200}")
_TOKEN = re.compile(r"[!-~]{1,16384}")


class Credentials(NamedTuple):
    """Who makes a call."""

    token: str = ""
    """Bearer token; empty: none."""

    subject: str = ""
    """For whom it is made, where the token's role is delegate or admin; empty: for the token's own subject."""

    address: str = ""
    """Of the person's own machine, where this program stands in between; empty: not known."""


Login = Callable[[], Credentials]
"""Who makes the next call."""


def no_login() -> Credentials:
    """Nobody in particular."""
    return Credentials()


def token_file_login(path: Path, subject: str = "") -> Login:
    """The token that a file holds, now and after it has changed.

    Raises:
        SettingsError: the file can't be read, or holds no token.
    """
    token = Watched([path], read_token)
    return lambda: Credentials(token=token.get(), subject=subject)


def read_token(data: bytes) -> str:
    """The token in a file's bytes; space and line ends around it don't count. Raises ValueError."""
    token = data.decode("ascii", errors="replace").strip()
    if not _TOKEN.fullmatch(token):
        raise ValueError("the file must hold one token and nothing else")
    return token


def metadata_of(credentials: Credentials) -> tuple[tuple[str, str], ...]:
    """What a call carries."""
    bearer = f"Bearer {credentials.token}" if credentials.token else ""
    values = ((AUTHORIZATION, bearer), (SUBJECT, credentials.subject), (FORWARDED_FOR, credentials.address))
    return tuple((name, value) for name, value in values if value)


def checked_subject(text: str) -> str:
    """``text`` if it can name somebody.

    Raises:
        InvalidOption: it can't.
    """
    if not _SUBJECT.fullmatch(text):
        raise InvalidOption("Whoever a call is made for is named by 1 to 200 characters of ASCII without spaces.", field=SUBJECT)
    return text
