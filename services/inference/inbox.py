"""The caller's side of one Restore stream: its packets, and which segments it has stored.

Acknowledgements come behind chunks in one stream. So whoever waits for one must not stop reading for long: the limit on
unacknowledged segments holds only while there is room for chunks.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterable, AsyncIterator

from services.common.errors import ChunkOutOfOrder, InvalidVideo, ServiceError
from services.common.media import Packet, SpanTask
from services.common.pb.seedvr2.v1 import worker_pb2 as pb
from services.common.rpc.codec import PacketAssembler, decode_task

_MAX_BUFFERED_BYTES = 8 << 20
_MAX_UNACKNOWLEDGED = 2
_MAX_PACKET_BYTES = 256 << 20
# What a packet costs besides its data, so that a flood of tiny ones is no way around the limit.
_PACKET_OVERHEAD_BYTES = 1024


class SpanInbox:
    """Reads a Restore stream: the header first, then, inside :meth:`reading`, everything else in a task of its own."""

    def __init__(self, requests: AsyncIterable[pb.RestoreRequest]) -> None:
        self._requests = aiter(requests)
        self._assembler = PacketAssembler()
        self._packets: deque[Packet] = deque()
        self._buffered_bytes = 0
        self._ended, self._closed, self._settling = False, False, False
        self._error: ServiceError | None = None
        self._unacknowledged: set[int] = set()
        self._changed = asyncio.Condition()

    async def header(self) -> SpanTask:
        """What the span is.

        Raises:
            ChunkOutOfOrder: the stream doesn't begin with it.
        """
        first = await anext(self._requests, None)
        if first is None or first.WhichOneof("message") != "header":
            raise ChunkOutOfOrder("A span's stream must begin with its header.")
        return decode_task(first.header)

    @contextlib.asynccontextmanager
    async def reading(self) -> AsyncIterator[None]:
        """Read on inside the block."""
        task = asyncio.create_task(self._read())
        try:
            yield
        finally:
            task.cancel()

    async def packets(self) -> AsyncIterator[Packet]:
        """Packets in decoding order, to the span's end.

        Raises:
            ChunkOutOfOrder: the stream breaks off, or doesn't fit together.
        """
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._packets or self._ended)
                if not self._packets:
                    if self._error is not None:
                        raise self._error
                    return
                packet = self._packets.popleft()
                self._buffered_bytes -= _cost_bytes(packet)
                self._changed.notify_all()
            yield packet

    async def room_for(self, first: int) -> None:
        """Wait until the segment that begins at ``first`` may be sent: not too many others are unacknowledged."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._unacknowledged) < _MAX_UNACKNOWLEDGED or self._ended or self._full)
            self._unacknowledged.add(first)

    async def settled(self) -> None:
        """Let go of packets that nobody needs; return when the caller has sent all and acknowledged every segment.

        To a caller in the middle of a write, a call that ends looks broken (https://github.com/grpc/grpc/issues/36066).
        """
        async with self._changed:
            self._settling = True
            self._packets.clear()
            self._buffered_bytes = 0
            self._changed.notify_all()
            await self._changed.wait_for(lambda: self._closed or (self._ended and not self._unacknowledged))

    @property
    def _full(self) -> bool:
        return self._buffered_bytes >= _MAX_BUFFERED_BYTES

    async def _read(self) -> None:
        try:
            async for request in self._requests:
                await self._take(request)
            if not self._ended:
                raise ChunkOutOfOrder("The stream ended before the span did.")
        except ServiceError as error:
            self._error = error
        async with self._changed:
            self._ended = self._closed = True
            self._changed.notify_all()

    async def _take(self, request: pb.RestoreRequest) -> None:
        kind = request.WhichOneof("message")
        if kind == "stored":
            await self._acknowledge(request.stored.first)
        elif kind == "chunk" and not self._ended:
            _check_sizes(request.chunk)
            await self._buffer(list(self._assembler.feed(request.chunk)))
        elif kind == "end" and not self._ended:
            self._assembler.finish()
            async with self._changed:
                self._ended = True
                self._changed.notify_all()
        else:
            raise ChunkOutOfOrder(f"A {kind or 'empty message'} can't stand here in a span's stream.")

    async def _acknowledge(self, first: int) -> None:
        async with self._changed:
            self._unacknowledged.discard(first)
            self._changed.notify_all()

    async def _buffer(self, packets: list[Packet]) -> None:
        async with self._changed:
            if self._settling:
                return
            self._packets.extend(packets)
            self._buffered_bytes += sum(map(_cost_bytes, packets))
            self._changed.notify_all()
            # Not reading on is what slows the caller down.
            await self._changed.wait_for(lambda: not self._full)


def _cost_bytes(packet: Packet) -> int:
    return len(packet.data) + _PACKET_OVERHEAD_BYTES


def _check_sizes(chunk: pb.Chunk) -> None:
    largest = max((part.info.size_bytes for part in chunk.parts), default=0)
    if largest > _MAX_PACKET_BYTES:
        raise InvalidVideo(
            f"A packet of the video has {largest >> 20} MiB; at most {_MAX_PACKET_BYTES >> 20} MiB are taken. It is damaged."
        )
