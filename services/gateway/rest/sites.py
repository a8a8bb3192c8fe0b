"""Web pages of other sites. A browser sends what a page asks for even where the page may not read the answer, and a gateway that
lets everybody in would do it."""

from collections.abc import Sequence
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common.errors import PermissionDenied
from services.gateway.rest.answers import error_answer

_REFUSAL = PermissionDenied(
    "Pages of this site may not call here; the gateway's SEEDVR2_GATEWAY_REST_CORS_ORIGINS says which may."
)


class Sites:
    """Refuses requests of pages that are neither this server's own nor from an allowed origin."""

    def __init__(self, app: ASGIApp, origins: Sequence[str]) -> None:
        self._app = app
        self._origins = frozenset(origins)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        refused = scope["type"] == "http" and not self._may_call(Headers(scope=scope))
        await (error_answer(_REFUSAL) if refused else self._app)(scope, receive, send)

    def _may_call(self, headers: Headers) -> bool:
        origin = headers.get("origin")
        # Whatever is no browser sends none.
        if origin is None or origin in self._origins or "*" in self._origins:
            return True
        return urlsplit(origin).netloc == headers.get("host", "")
