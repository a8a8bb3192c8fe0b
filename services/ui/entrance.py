"""Finds out who sent a request, before anything answers it. Pure ASGI, so that streams stay streams.

With ``user_header`` a proxy signs people in and names them; this server then acts for them with its own token. Otherwise people
sign in with their token, if the gateway wants one, and a sealed cookie brings it along.
"""

from collections.abc import Callable
from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common.addresses import client_address, is_within, parse_networks
from services.common.client import GatewayClient
from services.common.errors import InvalidOption, ServiceError, Unauthenticated
from services.common.login import FORWARDED_FOR, Credentials, checked_subject
from services.ui.links import Links
from services.ui.seal import Seal
from services.ui.settings import UiSettings
from services.ui.soon import soon
from services.ui.visitor import Visitor, set_visitor

COOKIE = "seedvr2_session"
"""Name of the cookie that holds a sealed token."""

_FOR_ALL = ("/healthz", "/readyz", "/metrics", "/ui/", "/login")
_NOBODY = "Nobody is signed in. Open this page through the proxy that signs people in."


class Entrance:
    """Tells who a visitor is to everything behind it, and leads whoever must sign in to where that is done."""

    def __init__(
        self, app: ASGIApp, client: GatewayClient, settings: UiSettings, seal: Seal, own_token: Callable[[], str]
    ) -> None:
        """``own_token`` is this server's own; empty: it has none."""
        self._app = app
        self._client = client
        self._seal = seal
        self._links = Links(root_path=settings.root_path)
        self._user_header = settings.user_header
        self._trusted = parse_networks(settings.trusted_proxies)
        self._own_token = own_token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers, host = Headers(scope=scope), (scope.get("client") or ("", 0))[0]
        path = str(scope["path"]).removeprefix(self._links.root_path) or "/"
        address = client_address(host, ",".join(headers.getlist(FORWARDED_FOR)), self._trusted)
        visitor = self._named(headers, host, address) if self._user_header else self._signed_in(headers, address)
        set_visitor(visitor or Visitor(self._nobody(address)))
        refusal: Response | None = None
        if visitor is None and not path.startswith(_FOR_ALL):
            refusal = PlainTextResponse(_NOBODY, status_code=401)
        elif path == "/" and not self._user_header:
            refusal = await self._lead_to_login(scope)
        await (refusal or self._app)(scope, receive, send)

    def _nobody(self, address: str) -> Credentials:
        return Credentials(token=self._own_token(), address=address)

    def _named(self, headers: Headers, host: str, address: str) -> Visitor | None:
        """Whom the proxy names; None: nobody, or it is not the proxy who says so."""
        names = headers.getlist(self._user_header)
        if not is_within(host, self._trusted) or len(names) != 1:
            return None
        try:
            subject = checked_subject(names[0].strip())
        except InvalidOption:
            return None
        return Visitor(self._nobody(address)._replace(subject=subject), name=subject)

    def _signed_in(self, headers: Headers, address: str) -> Visitor:
        held = self._seal.open(cookie_of(headers)) if cookie_of(headers) else None
        if held is None:
            return Visitor(Credentials(address=address))
        return Visitor(Credentials(token=held.token, address=address), name=held.name, can_leave=True)

    async def _lead_to_login(self, scope: Scope) -> Response | None:
        """Where whoever has no token, or one that doesn't count any more, goes instead; None: they are let in."""
        try:
            await soon(self._client.caller())
        except Unauthenticated:
            query = scope["query_string"].decode("ascii", errors="replace")
            return RedirectResponse(self._links.login(query), status_code=303, headers={"Cache-Control": "no-store"})
        except ServiceError:
            # The page itself says that the gateway doesn't answer.
            return None
        return None


def cookie_of(headers: Headers) -> str:
    """The sign-in cookie's value; empty where there is none."""
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
