"""Who makes the call that is being answered."""

import contextlib
import enum
import hashlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from services.gateway.keys import LOCAL

_OWNER_CHARACTERS = 32


class Role(enum.StrEnum):
    """What somebody may do."""

    USER = "user"
    """Everything with what is theirs."""

    ADMIN = "admin"
    """Everything."""

    DELEGATE = "delegate"
    """Speaks for others, whom it names."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Caller:
    """Whoever calls."""

    subject: str
    """Who it is, as the identity provider or the token says; empty without authentication."""

    role: Role
    """What they may do."""

    @property
    def owner(self) -> str:
        """Under which name their jobs and uploads are kept."""
        return hashlib.sha256(self.subject.encode()).hexdigest()[:_OWNER_CHARACTERS] if self.subject else LOCAL


ANYBODY = Caller(subject="", role=Role.ADMIN)
"""The caller where nobody has to say who they are."""

_caller: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)


def current_caller() -> Caller:
    """Who makes the call that this task answers."""
    return _caller.get()


def set_caller(caller: Caller) -> None:
    """Say for whom this task, and those that it starts, works from now on."""
    _caller.set(caller)


@contextlib.contextmanager
def calling(caller: Caller) -> Iterator[None]:
    """Work for somebody inside the block."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)
