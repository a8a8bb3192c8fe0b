"""Ends the streams that open pages hold when the server stops, so that only transfers are waited for. Pure ASGI."""

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class StreamsEnd:
    """Tells every request but those for files that its browser is gone once ``stop`` is set, and completes its answer."""

    def __init__(self, app: ASGIApp, stop: asyncio.Event) -> None:
        self._app = app
        self._stop = stop

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry."""
        if scope["type"] != "http" or "/files/" in scope["path"]:
            await self._app(scope, receive, send)
            return
        open_answer = False

        async def send_noted(message: Message) -> None:
            nonlocal open_answer
            open_answer = message["type"] == "http.response.start" or bool(message.get("more_body"))
            await send(message)

        await self._app(scope, lambda: self._receive(receive), send_noted)
        if open_answer and self._stop.is_set():
            await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _receive(self, receive: Receive) -> Message:
        message, stop = asyncio.ensure_future(receive()), asyncio.ensure_future(self._stop.wait())
        try:
            await asyncio.wait({message, stop}, return_when=asyncio.FIRST_COMPLETED)
            return message.result() if message.done() else {"type": "http.disconnect"}
        finally:
            message.cancel()
            stop.cancel()
