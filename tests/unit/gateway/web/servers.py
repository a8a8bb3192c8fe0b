"""HTTP servers on loopback that answer as they are told to, also against the rules."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable

from tests.certificates import Authority

Respond = Callable[["Seen", asyncio.StreamWriter], Awaitable[None]]


class Seen:
    """A request as it arrived."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.line, *lines = head.decode("latin-1").rstrip("\r\n").split("\r\n")
        self.headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        self.body = body


class WebServer:
    """Remembers requests; ``respond`` writes the answer, then the connection is closed."""

    def __init__(self, respond: Respond) -> None:
        self.respond = respond
        self.seen: list[Seen] = []
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
            head = await reader.readuntil(b"\r\n\r\n")
            request = Seen(head, b"")
            request.body = await reader.readexactly(int(request.headers.get("content-length", 0)))
            self.seen.append(request)
            await self.respond(request, writer)
            await writer.drain()
        writer.close()


@contextlib.asynccontextmanager
async def web_server(respond: Respond, tls: ssl.SSLContext | None = None) -> AsyncIterator[WebServer]:
    """A server on a free port of 127.0.0.1."""
    web = WebServer(respond)
    server = await asyncio.start_server(web.serve, "127.0.0.1", 0, ssl=tls)
    web.port = server.sockets[0].getsockname()[1]
    try:
        yield web
    finally:
        server.close()


def says(status: str, body: bytes = b"", **headers: str) -> Respond:
    """Always the same answer; underscores in header names are dashes."""

    async def respond(request: Seen, writer: asyncio.StreamWriter) -> None:
        fields = {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
        lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
        writer.write("\r\n".join(lines).encode() + body)

    return respond


def raw(data: bytes) -> Respond:
    """Exactly these bytes."""

    async def respond(request: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(data)

    return respond


def server_tls(authority: Authority, *names: str) -> ssl.SSLContext:
    """A server's side, with a certificate for some names."""
    pair = authority.sign("server", *names)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    return context
