"""Bytes over HTTP, a piece at a time: request bodies in, parts of files out."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from typing import Protocol
from urllib.parse import quote

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from services.common.errors import RangeOutOfBounds, ServiceError, TooLarge
from services.common.http.ranges import ByteRange, parse_range

PIECE_BYTES = 1 << 20
"""Bodies of requests are given on in pieces of this size."""

_PLAYABLE = ("video/", "audio/", "image/png", "image/jpeg", "image/webp")


class FileInfo(Protocol):
    """What an object is as a whole."""

    @property
    def filename(self) -> str:
        """For people; may be empty."""

    @property
    def media_type(self) -> str:
        """For browsers."""

    @property
    def size_bytes(self) -> int:
        """Of the whole object."""

    @property
    def sha256(self) -> str:
        """Of the whole object; empty: not known."""


ReadPart = Callable[[int, int], Awaitable[tuple[FileInfo, AsyncGenerator[bytes, None]]]]
"""Opens ``length`` bytes from ``offset`` on (0: to the end) of one object."""

ErrorAnswer = Callable[[ServiceError], Response]
"""How a service tells an error."""


async def body_pieces(request: Request, limit_bytes: int) -> AsyncIterator[bytes]:
    """The body of a request, in pieces that fit into messages. Ends early, without an error, when the browser goes away,
    so that what arrived is kept.

    Raises:
        TooLarge: more than ``limit_bytes`` came.
    """
    with contextlib.suppress(ClientDisconnect):
        async for piece in gathered(limited(request.stream(), limit_bytes)):
            yield piece


async def gathered(data: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    """The same bytes in pieces of one size, and a last one. Where a client goes away, what it sent comes before the error."""
    buffer, gone = bytearray(), None
    try:
        async for part in data:
            buffer += part
            while len(buffer) >= PIECE_BYTES:
                yield bytes(buffer[:PIECE_BYTES])
                del buffer[:PIECE_BYTES]
    except ClientDisconnect as error:
        gone = error
    if buffer:
        yield bytes(buffer)
    if gone is not None:
        raise gone


async def limited(data: AsyncIterable[bytes], limit_bytes: int) -> AsyncGenerator[bytes, None]:
    """The same bytes. Raises TooLarge once there are more than ``limit_bytes``."""
    total = 0
    async for part in data:
        total += len(part)
        if total > limit_bytes:
            raise TooLarge(f"One upload request may bring at most {limit_bytes} bytes here.")
        yield part


async def file_answer(
    request: Request, read: ReadPart, *, attachment: bool, on_bytes: Callable[[int], None], error_answer: ErrorAnswer
) -> Response:
    """A file or the part of it that the request asks for: 200, 206, 304, or 416 with the real size.

    Raises:
        ServiceError: what ``read`` raises.
    """
    info, probe = await read(0, 1)
    await probe.aclose()
    headers = _file_headers(info, attachment)
    if info.sha256 and request.headers.get("if-none-match") == headers["ETag"]:
        return Response(status_code=304, headers={"ETag": headers["ETag"], "Cache-Control": headers["Cache-Control"]})
    try:
        part = _wanted(request.headers, headers.get("ETag"), info.size_bytes)
    except RangeOutOfBounds as error:
        answer = error_answer(error)
        answer.headers["Content-Range"] = f"bytes */{info.size_bytes}"
        return answer
    whole = ByteRange(offset=0, length=info.size_bytes)
    headers["Content-Length"] = str((part or whole).length)
    if part:
        headers["Content-Range"] = part.content_range(info.size_bytes)
    status = 206 if part else 200
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    _, pieces = await read((part or whole).offset, (part or whole).length)
    return PiecesResponse(pieces, status_code=status, headers=headers, on_bytes=on_bytes)


class PiecesResponse(StreamingResponse):
    """Sends pieces as they come and closes their source, also when the browser goes away in the middle."""

    def __init__(
        self,
        pieces: AsyncGenerator[bytes, None],
        *,
        status_code: int,
        headers: Mapping[str, str],
        on_bytes: Callable[[int], None],
    ) -> None:
        super().__init__(_counted(pieces, on_bytes), status_code=status_code, headers=headers)
        self._pieces = pieces

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer; the ASGI entry."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await self._pieces.aclose()


async def _counted(pieces: AsyncIterable[bytes], on_bytes: Callable[[int], None]) -> AsyncIterator[bytes]:
    async for piece in pieces:
        on_bytes(len(piece))
        yield piece


def _wanted(request: Headers, etag: str | None, size_bytes: int) -> ByteRange | None:
    condition = request.get("if-range")
    if condition is not None and condition != etag:
        return None
    return parse_range(request.get("range"), size_bytes)


def _file_headers(info: FileInfo, attachment: bool) -> dict[str, str]:
    # A hostile upload must not become a page of this server: only media is named as what it is.
    media_type = info.media_type if info.media_type.startswith(_PLAYABLE) else "application/octet-stream"
    headers = {
        "Accept-Ranges": "bytes",
        "Cache-Control": "private, no-cache",
        "Content-Type": media_type,
        "Content-Disposition": _disposition(info.filename or "video", attachment),
        "Content-Security-Policy": "default-src 'none'; media-src 'self'; style-src 'unsafe-inline'; sandbox",
    }
    if info.sha256:
        headers["ETag"] = f'"{info.sha256}"'
    return headers


def _disposition(filename: str, attachment: bool) -> str:
    plain = "".join(c if c.isascii() and c.isprintable() and c not in '"\\%' else "_" for c in filename)
    kind = "attachment" if attachment else "inline"
    return f"{kind}; filename=\"{plain}\"; filename*=UTF-8''{quote(filename, safe='')}"
