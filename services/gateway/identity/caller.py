"""Who makes the call that is being answered."""

import contextlib
import enum
import hashlib
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass

from services.common.errors import PermissionDenied
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

    by: "Caller | None" = None
    """Who really calls, in the name of this one; None: nobody else."""

    @property
    def owner(self) -> str:
        """Under which name their jobs and uploads are kept."""
        return owner_of(self.subject)


ANYBODY = Caller(subject="", role=Role.ADMIN)
"""The caller where nobody has to say who they are."""

_caller: ContextVar[Caller] = ContextVar("caller", default=ANYBODY)


def owner_of(subject: str) -> str:
    """Under which name the jobs and uploads of a subject are kept; of the empty one: of callers without authentication."""
    return hashlib.sha256(subject.encode()).hexdigest()[:_OWNER_CHARACTERS] if subject else LOCAL


def current_caller() -> Caller:
    """Who makes the call that this task answers."""
    return _caller.get()


def require_admin(what: str) -> None:
    """Let nobody but administrators do ``what``. Raises PermissionDenied."""
    if current_caller().role is not Role.ADMIN:
        raise PermissionDenied(f"Only administrators may {what}.")


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
