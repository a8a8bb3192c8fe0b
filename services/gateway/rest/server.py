"""Serves the HTTP API beside the gRPC server, in the same process and event loop."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from starlette.types import ASGIApp

from services.common.http.serve import HttpServer, address_of, bound_socket
from services.common.http.tls import server_context
from services.common.rpc.tls import ServerTls


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, address: str, drain_s: float, tls: ServerTls | None = None) -> AsyncIterator[str]:
    """Serve inside the block; gives host:port, and empty where ``address`` is. At its end open requests have ``drain_s``.

    Raises:
        SettingsError: the address is taken or wrong, or a file of TLS can't be used.
    """
    if not address:
        yield ""
        return
    with bound_socket(address) as listener:
        context, stop = server_context(tls) if tls else None, asyncio.Event()
        server = HttpServer(app, listener, drain_s, tls=context)
        running = asyncio.create_task(server.run_until(stop))
        await server.wait_listening()
        try:
            yield address_of(listener)
        finally:
            stop.set()
            await running
