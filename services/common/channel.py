"""Messages between two processes of one machine, over a stream socket.

A message is a kind, JSON fields and a payload of raw bytes: nothing that the other side sends can run code here, which a
pickle could. The blocking end is for worker processes, the asyncio end for servers. A full socket blocks the sender; that
is the back-pressure.
"""

import asyncio
import contextlib
import json
import select
import socket
import struct
from dataclasses import dataclass, field
from typing import Any

_HEAD = struct.Struct("<IQ")
_MAX_FIELDS_BYTES = 64 << 20
_MAX_PAYLOAD_BYTES = 1 << 30


class ChannelClosed(Exception):
    """The other side has closed its end, or died."""


class ChannelGarbled(Exception):
    """The other side sent something that is no message."""


@dataclass(frozen=True, slots=True)
class Message:
    """What one side says to the other."""

    kind: str
    """What it is about; the receiver switches on it."""

    fields: dict[str, Any] = field(default_factory=dict)
    """Values that JSON can carry."""

    payload: bytes | bytearray = b""
    """Raw bytes: packets, frames, a segment."""


Buffer = bytes | bytearray | memoryview


def _head(kind: str, fields: dict[str, Any], payload_bytes: int) -> bytes:
    body = json.dumps([kind, fields], separators=(",", ":")).encode()
    return _HEAD.pack(len(body), payload_bytes) + body


def _sizes(head: bytes) -> tuple[int, int]:
    fields_bytes, payload_bytes = _HEAD.unpack(head)
    if fields_bytes > _MAX_FIELDS_BYTES or payload_bytes > _MAX_PAYLOAD_BYTES:
        raise ChannelGarbled(f"a message of {fields_bytes} + {payload_bytes} bytes")
    return fields_bytes, payload_bytes


def _message(body: bytes | bytearray, payload: bytes | bytearray) -> Message:
    try:
        kind, fields = json.loads(body)
    except ValueError as error:
        raise ChannelGarbled("fields that are not JSON") from error
    if not isinstance(kind, str) or not isinstance(fields, dict):
        raise ChannelGarbled("fields of another shape")
    return Message(kind, fields, payload)


class Channel:
    """The blocking end."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._socket.setblocking(True)

    def send(self, kind: str, payload: Buffer = b"", **fields: Any) -> None:
        """Send one message; blocks while the other side doesn't read.

        Raises:
            ChannelClosed: nobody is there any more.
        """
        view = memoryview(payload).cast("B") if payload else memoryview(b"")
        try:
            self._socket.sendall(_head(kind, fields, len(view)))
            if view:
                self._socket.sendall(view)
        except (BrokenPipeError, ConnectionResetError) as error:
            raise ChannelClosed("the other side is gone") from error

    def receive(self) -> Message:
        """Wait for the next message.

        Raises:
            ChannelClosed: there will be none.
        """
        fields_bytes, payload_bytes = _sizes(bytes(self._read(_HEAD.size)))
        return _message(self._read(fields_bytes), self._read(payload_bytes))

    def waiting(self, timeout_s: float = 0.0) -> bool:
        """Whether a message, or the end, can be received without waiting longer than ``timeout_s``."""
        readable, _, _ = select.select([self._socket], [], [], timeout_s)
        return bool(readable)

    def close(self) -> None:
        """Close this end; the other side sees ChannelClosed."""
        self._socket.close()

    def fileno(self) -> int:
        """Of the socket."""
        return self._socket.fileno()

    def _read(self, count: int) -> bytearray:
        data = bytearray(count)
        view = memoryview(data)
        while view:
            try:
                got = self._socket.recv_into(view)
            except ConnectionResetError as error:
                raise ChannelClosed("the other side is gone") from error
            if not got:
                raise ChannelClosed("the other side is gone")
            view = view[got:]
        return data


def wait_any(*channels: Channel) -> None:
    """Wait until one of several channels has a message, or its end."""
    select.select(channels, [], [])


class AsyncChannel:
    """The asyncio end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._sending = asyncio.Lock()

    @classmethod
    async def over(cls, end: socket.socket) -> "AsyncChannel":
        """Take over one end of a socket pair."""
        reader, writer = await asyncio.open_connection(sock=end, limit=1 << 20)
        return cls(reader, writer)

    async def send(self, kind: str, payload: Buffer = b"", **fields: Any) -> None:
        """Send one message; waits while the other side doesn't read. Raises ChannelClosed."""
        view = memoryview(payload).cast("B") if payload else memoryview(b"")
        async with self._sending:
            try:
                self._writer.write(_head(kind, fields, len(view)))
                if view:
                    self._writer.write(view)
                await self._writer.drain()
            except (ConnectionError, RuntimeError) as error:
                raise ChannelClosed("the other side is gone") from error

    async def receive(self) -> Message:
        """Wait for the next message. Raises ChannelClosed."""
        try:
            fields_bytes, payload_bytes = _sizes(await self._reader.readexactly(_HEAD.size))
            body = await self._reader.readexactly(fields_bytes)
            return _message(body, await self._reader.readexactly(payload_bytes))
        except (asyncio.IncompleteReadError, ConnectionError) as error:
            raise ChannelClosed("the other side is gone") from error

    async def aclose(self) -> None:
        """Send what is still buffered and close this end."""
        self._writer.close()
        # What could not be sent any more is no concern of someone who closes.
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()


def channel_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends, close-on-exec both."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
