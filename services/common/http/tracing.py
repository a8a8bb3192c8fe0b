"""Requests by HTTP: each works in a trace and for a request, whose id its answer tells. What it calls meanwhile carries both."""

from collections.abc import MutableMapping
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common import tracing

# Asked all the time by whoever watches this service.
_QUIET = frozenset({"/healthz", "/readyz", "/metrics"})


class Traced:
    """Takes request id and trace from a request's headers, or makes them."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http" or scope["path"] in _QUIET:
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        parent = tracing.parse(headers.get(tracing.TRACEPARENT, ""), headers.get(tracing.TRACESTATE, ""))
        request_id = tracing.checked_request_id(headers.get(tracing.REQUEST_ID, ""))
        name = f"{scope['method']} /{scope['path'].split('/')[1]}"
        with tracing.working_for(parent, request_id), tracing.span(name, kind="server", path=scope["path"]) as span:

            async def told(message: MutableMapping[str, Any]) -> None:
                if message["type"] == "http.response.start":
                    span.attributes["http.response.status_code"] = message["status"]
                    span.error = str(message["status"]) if message["status"] >= 500 else ""
                    MutableHeaders(scope=message)[tracing.REQUEST_ID] = request_id
                await send(message)

            await self._app(scope, receive, told)
