"""Who looks at the page: what each request brings along, for the calls that are made while it is answered."""

from contextvars import ContextVar
from typing import NamedTuple

from services.common.login import Credentials


class Visitor(NamedTuple):
    """Whoever sent the request that is being answered."""

    credentials: Credentials = Credentials()
    """What the gateway is shown."""

    name: str = ""
    """Their subject, for the page; empty: not known."""

    can_leave: bool = False
    """Whether they signed in here, and so can sign out."""


NOBODY = Visitor()
"""Of no request."""

_visitor: ContextVar[Visitor] = ContextVar("visitor", default=NOBODY)


def current_visitor() -> Visitor:
    """Whose request this task answers; nobody's outside of one, so that the gateway lets nobody's calls in."""
    return _visitor.get()


def set_visitor(visitor: Visitor) -> None:
    """Say whose request this task answers; each request has a task of its own."""
    _visitor.set(visitor)


def visitor_login() -> Credentials:
    """The login of the page's client: each call is its visitor's, over one connection for all."""
    return current_visitor().credentials
