"""By which names a service that only this machine reaches may be asked for.

A site's name can be made to lead to 127.0.0.1 (DNS rebinding). A browser then sends that name as Host, takes this server for the
site's own, and lets the site's scripts read what it answers. An address can't be made to lead elsewhere, nor can localhost.
"""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common.addresses import parse_address

STATUS = 421
"""Misdirected Request, with which others are refused."""


class KnownHosts:
    """Lets ``refusal`` answer requests for a name that isn't this server's, where it listens on loopback alone."""

    def __init__(self, app: ASGIApp, *, address: str, names: Sequence[str], refusal: ASGIApp) -> None:
        """``address``: where it listens, host:port. ``names``: by which it is known besides, as behind a proxy; ``*``: any."""
        self._app = app
        self._names = frozenset(name.lower() for name in names)
        self._refusal = refusal
        self._checks = _is_this_machine(_name_in(address)) and "*" not in self._names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        known = not self._checks or scope["type"] == "lifespan" or self._is_known(Headers(scope=scope))
        await (self._app if known else self._refusal)(scope, receive, send)

    def _is_known(self, headers: Headers) -> bool:
        name = _name_in(headers.get("host", ""))
        return name in self._names or name == "localhost" or name.endswith(".localhost") or parse_address(name) is not None


def _name_in(host: str) -> str:
    """The name or address in host:port, without the brackets of an IPv6 one; empty where there is none."""
    try:
        return (urlsplit(f"//{host}").hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_this_machine(name: str) -> bool:
    address = parse_address(name)
    return name == "localhost" or (address is not None and address.is_loopback)
