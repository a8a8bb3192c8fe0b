"""The page's server: when it stops, open pages are told at once, and only transfers are waited for."""

import asyncio
import socket
import ssl

from starlette.types import ASGIApp

from services.common.http.serve import HttpServer
from services.ui.ending import StreamsEnd


class PageServer(HttpServer):
    """See :class:`HttpServer`."""

    def __init__(self, app: ASGIApp, listener: socket.socket, drain_s: float, *, tls: ssl.SSLContext | None = None) -> None:
        self._stop = asyncio.Event()
        super().__init__(StreamsEnd(app, self._stop), listener, drain_s, tls=tls)

    def stopping(self) -> None:
        """Tell the open pages."""
        self._stop.set()
