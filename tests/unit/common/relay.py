"""A TCP relay that cuts connections on purpose."""

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Relay:
    """Passes bytes between clients and one port; cuts every connection once when ``cut_after`` bytes have gone one way."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._writers: set[asyncio.StreamWriter] = set()
        self.up_bytes: int | None = None
        """Cut after this many bytes to the server."""
        self.down_bytes: int | None = None
        """Cut after this many bytes to the client."""
        self.cuts = 0
        self.address = ""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self._target)
        self._writers |= {writer, back}
        await asyncio.gather(self._pass(reader, back, "up_bytes"), self._pass(there, writer, "down_bytes"))

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, budget: str) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(16384):
                left = getattr(self, budget)
                if left is not None:
                    setattr(self, budget, left - len(data))
                    if left < len(data):
                        self.cut()
                        return
                writer.write(data)
                await writer.drain()
        writer.close()

    def cut(self) -> None:
        """Break every connection without a word."""
        self.up_bytes = self.down_bytes = None
        self.cuts += 1
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@contextlib.asynccontextmanager
async def relay_to(port: int) -> AsyncIterator[Relay]:
    relay = Relay(port)
    server = await asyncio.start_server(relay.serve, "127.0.0.1", 0)
    relay.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield relay
    finally:
        server.close()
        relay.cut()
