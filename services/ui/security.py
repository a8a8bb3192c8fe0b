"""What every answer carries, and what of Gradio is closed. Pure ASGI, so that streams stay streams."""

import re

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

# Gradio's page evaluates its own templates, hence 'unsafe-inline' and 'unsafe-eval'; nothing comes from another host.
_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; media-src 'self' blob:; font-src 'self' data:; connect-src 'self'; "
    "object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'self'"
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}

# Everything else that Gradio brings (its own uploads, file and URL proxies, recordings, monitoring) is closed.
_OPEN = re.compile(
    r"/|/login|/logout|/(healthz|readyz|metrics|config|theme\.css|favicon\.ico|robots\.txt)/?"
    r"|/(files|ui|assets|static)/.+"
    r"|/gradio_api/(queue/join|queue/data|run/predict|heartbeat/[^/]+|startup-events|theme\.css|app_id|info|reset|cancel)/?"
)
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
_OWN_SITES = frozenset({"same-origin", "none"})


class Guard:
    """Adds the security headers; refuses closed paths and changes that other sites' pages ask for.

    ``root_path`` is where a proxy publishes the page; requests come with it or without.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root_path = root_path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        below = self._below_root(str(scope["path"]))
        # As ASGI has it: the whole path, and how much of it is the root's.
        scope = {**scope, "root_path": self._root_path, "path": self._root_path + below}

        async def send_guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await (_refusal(scope, below) or self._app)(scope, receive, send_guarded)

    def _below_root(self, path: str) -> str:
        inside = path == self._root_path or path.startswith(f"{self._root_path}/")
        return (path[len(self._root_path) :] if inside else path) or "/"


def _refusal(scope: Scope, path: str) -> PlainTextResponse | None:
    if not _OPEN.fullmatch(path):
        return PlainTextResponse("There is nothing here.", status_code=404)
    site = Headers(scope=scope).get("sec-fetch-site", "none")
    if scope["method"] not in _SAFE_METHODS and site not in _OWN_SITES:
        return PlainTextResponse("Only this server's own page may do that.", status_code=403)
    return None
