"""A way between two processes that fails as it is told: slow, refused, cut, silent, or with an error in place of the answer."""

import asyncio
import contextlib
import re
import socket
import ssl
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

_PIECE = 64 << 10
_BODY = "<Error><Code>{code}</Code><Message>told to fail</Message></Error>"
_CODES = {400: "MalformedXML", 500: "InternalError", 503: "SlowDown", 507: "XMinioStorageFull", 403: "AccessDenied"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """What goes wrong; nothing by default."""

    delay_s: float = 0.0
    """Seconds before each piece goes on, either way."""

    refuse: bool = False
    """Connections are reset as soon as they are made."""

    silent: bool = False
    """Connections are made, and nothing goes on."""

    cut_request_after: int | None = None
    """Bytes of a connection's requests that go on; then both sides are reset."""

    cut_answer_after: int | None = None
    """Bytes of a connection's answers that go on; then both sides are reset. 0: the request is done and nobody is told."""

    status: int | None = None
    """HTTP only: the answer, instead of the server's; the server is not asked."""

    times: int | None = None
    """So many connections, or with HTTP requests, fail; then none. None: all."""

    only: str = ""
    """HTTP only: a regular expression that finds something in ``METHOD /path?query``; other requests pass."""


@dataclass(slots=True)
class Request:
    """An HTTP request that came by."""

    line: str
    """METHOD /path?query."""

    headers: dict[str, str]
    """By names in lower case."""

    raw: bytes = field(repr=False)
    """As it came, without its body."""


class FaultProxy:
    """Listens on a port of its own and passes on to ``target``, host:port.

    With ``http`` each connection carries one HTTP/1.1 request, and requests are written down; otherwise any protocol goes.
    """

    def __init__(self, target: str, *, http: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self._host, _, port = target.rpartition(":")
        self._port = int(port)
        self._http = http
        self._tls = tls
        self._fault = Fault()
        self._left: int | None = None
        self._open: set[asyncio.StreamWriter] = set()
        self._serving: set[asyncio.Task[None]] = set()
        self.address = ""
        """host:port, once it listens."""
        self.requests: list[Request] = []
        """All that came by, with HTTP."""

    def set(self, fault: Fault = Fault()) -> None:
        """What goes wrong from now on. Connections that are there are cut where new ones would be refused or silent."""
        self._fault, self._left = fault, fault.times
        if fault.refuse or fault.silent:
            self.cut()

    def cut(self) -> None:
        """Reset all connections that there are."""
        for writer in self._open:
            _reset(writer)

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator["FaultProxy"]:
        """Listen inside the block."""
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, ssl=self._tls)
        host, port = server.sockets[0].getsockname()
        self.address = f"{host}:{port}"
        try:
            yield self
        finally:
            server.close()
            self.cut()
            await asyncio.gather(*self._serving, return_exceptions=True)

    def _next_fault(self, line: str = "") -> Fault:
        if self._left == 0 or not re.search(self._fault.only, line):
            return Fault()
        if self._left is not None:
            self._left -= 1
        return self._fault

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._serve_http(reader, writer) if self._http else self._serve_any(reader, writer))
        self._open.add(writer)
        self._serving.add(task)
        try:
            await task
        except (OSError, asyncio.IncompleteReadError):
            _reset(writer)
        finally:
            self._serving.discard(task)
            self._open.discard(writer)
            writer.close()

    async def _serve_any(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await self._pass(self._next_fault(), b"", reader, writer)

    async def _serve_http(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = _parse(await reader.readuntil(b"\r\n\r\n"))
        self.requests.append(request)
        fault = self._next_fault(request.line)
        if fault.status is not None:
            await reader.readexactly(int(request.headers.get("content-length", 0)))
            writer.write(_answer(fault.status))
            await writer.drain()
            return
        # The server closes after its answer, so that an answer ends where its connection does.
        head = request.raw.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n", 1)
        await self._pass(fault, head, reader, writer)

    async def _pass(self, fault: Fault, head: bytes, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if fault.refuse:
            raise ConnectionResetError
        if fault.silent:
            await writer.wait_closed()
            return
        far_reader, far_writer = await asyncio.open_connection(self._host, self._port)
        self._open.add(far_writer)
        try:
            async with asyncio.TaskGroup() as both:
                up = both.create_task(_copy_to_end(reader, far_writer, head, fault.delay_s, fault.cut_request_after))
                await _copy(far_reader, writer, b"", fault.delay_s, fault.cut_answer_after)
                up.cancel()
        except* OSError:
            _reset(writer)
        finally:
            self._open.discard(far_writer)
            _reset(far_writer)


def _reset(writer: asyncio.StreamWriter) -> None:
    """End a connection so that the other side's next read or write fails."""
    connection: socket.socket = writer.get_extra_info("socket")
    if connection.fileno() >= 0:
        # Linger for no time: a reset instead of an orderly end.
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


async def _copy_to_end(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, delay_s: float, cut_after: int | None
) -> None:
    await _copy(reader, writer, head, delay_s, cut_after)
    # The client is gone, and the server should know.
    writer.write_eof()


async def _copy(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes, delay_s: float, cut_after: int | None
) -> None:
    piece, passed = head or await reader.read(_PIECE), 0
    while piece:
        await asyncio.sleep(delay_s)
        if cut_after is not None:
            piece = piece[: cut_after - passed]
        writer.write(piece)
        await writer.drain()
        passed += len(piece)
        if passed == cut_after:
            raise ConnectionResetError
        piece = await reader.read(_PIECE)


def _parse(head: bytes) -> Request:
    first, *lines = head.decode("latin-1").rstrip().split("\r\n")
    pairs = (line.partition(":") for line in lines)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    return Request(line=first.rpartition(" ")[0], headers=headers, raw=head)


def _answer(status: int) -> bytes:
    body = _BODY.format(code=_CODES.get(status, "InternalError")).encode()
    head = f"HTTP/1.1 {status} told\r\nContent-Type: application/xml\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
    return head.encode() + body
