"""Objects that grow: bytes are appended by whichever process has the stream, and become an object in the end.

S3 can't append. Bytes are collected up to a part's size, then sent as a part of the object that is to be. A record beside it, the
:class:`Draft`, names the parts and holds the bytes after them; it is replaced on condition that it is still the one that was
read, so of two processes that append, the one whose record was replaced stops. Each uses part numbers of its own.
"""

import asyncio
import time
import weakref
from collections.abc import Coroutine
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from services.common.errors import AlreadyExists, ChunkOutOfOrder, NotFound, ServiceError, WrongState
from services.gateway.store.s3.draft import Draft, draft_from_bytes, draft_to_bytes
from services.gateway.store.s3.objects import Head, Objects
from services.gateway.store.s3.parts import complete, part_size

LEFTOVERS = ".unfinished/"
"""Begins the keys of drafts."""

_SIZE = "appended"

T = TypeVar("T")


@dataclass(slots=True)
class _Writer:
    """An unfinished object in this process's hands."""

    draft: Draft
    """As it is written down."""

    tag: str | None
    """Of the record; None before there is one."""

    tail: bytearray = field(default_factory=bytearray)
    """Bytes after the last part, written down or not."""

    mine: bool = False
    """Nobody else uses the next part's number."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return self.draft.size - len(self.draft.tail) + len(self.tail)


class Unfinished:
    """Unfinished objects. Methods raise ChunkOutOfOrder where another process goes on with the object, and what Objects raise."""

    def __init__(self, objects: Objects, *, part_bytes: int) -> None:
        self._objects = objects
        self._part_bytes = part_bytes
        self._writers: dict[str, _Writer] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()

    async def append(self, key: str, offset: int, data: bytes) -> int:
        """Add bytes to an object of ``offset`` bytes; returns its size. Before :meth:`settle` only this process has them all."""
        return await self._whole(self._append(key, offset, data))

    async def settle(self, key: str) -> None:
        """Write down what was appended."""
        await self._whole(self._settle(key))

    async def size(self, key: str) -> int:
        """Bytes appended, as far as this process knows. Raises NotFound where nothing is unfinished."""
        writer = self._writers.get(key)
        return writer.size if writer else int((await self._head(key)).metadata[_SIZE])

    async def modified(self, key: str) -> float:
        """When bytes were last appended; seconds since 1970. Raises NotFound where nothing is unfinished."""
        return time.time() if key in self._writers else (await self._head(key)).modified

    async def finish(self, key: str) -> None:
        """Make an object of what was appended; without anything unfinished nothing changes where there is one."""
        await self._whole(self._finish(key))

    async def delete(self, key: str) -> None:
        """Remove what was appended."""
        await self._whole(self._delete(key))

    # ---- each with the object's lock ----

    async def _append(self, key: str, offset: int, data: bytes) -> int:
        async with self._lock(key):
            writer = await self._writer(key)
            if writer.size != offset:
                if writer.tail == writer.draft.tail:
                    # Nothing is here that the record doesn't have.
                    del self._writers[key]
                raise ChunkOutOfOrder(f"The bytes that are kept don't end at offset {offset}.")
            kept = len(writer.tail)
            writer.tail += data
            try:
                if len(writer.tail) >= part_size(writer.draft.next_part, self._part_bytes):
                    await self._send_part(key, writer)
            except ChunkOutOfOrder:
                self._writers.pop(key, None)
                raise
            except ServiceError:
                del writer.tail[kept:]
                raise
            return writer.size

    async def _settle(self, key: str) -> None:
        async with self._lock(key):
            writer = self._writers.pop(key, None)
            if writer is not None:
                await self._write_tail(key, writer)

    async def _finish(self, key: str) -> None:
        async with self._lock(key):
            try:
                writer = await self._writer(key)
                await self._write_tail(key, writer)
                if writer.tag is None:
                    await self._make_empty(key)
                elif writer.draft.upload_id:
                    await self._complete(key, writer)
                else:
                    await self._objects.put(key, bytes(writer.tail))
            finally:
                self._writers.pop(key, None)
            await self._objects.delete(LEFTOVERS + key)

    async def _delete(self, key: str) -> None:
        async with self._lock(key):
            self._writers.pop(key, None)
            writer = await self._load(key)
            if writer.draft.upload_id:
                await self._objects.abort(key, writer.draft.upload_id)
            if writer.tag is not None:
                await self._objects.delete(LEFTOVERS + key)

    # ---- the lock held ----

    async def _head(self, key: str) -> Head:
        return await self._objects.head(LEFTOVERS + key)

    async def _writer(self, key: str) -> _Writer:
        if key not in self._writers:
            self._writers[key] = await self._load(key)
        return self._writers[key]

    async def _load(self, key: str) -> _Writer:
        try:
            data, tag = await self._objects.get(LEFTOVERS + key)
        except NotFound:
            return _Writer(Draft(), None)
        draft = draft_from_bytes(data)
        return _Writer(draft, tag, bytearray(draft.tail))

    async def _write(self, key: str, writer: _Writer, draft: Draft) -> None:
        try:
            data, size = draft_to_bytes(draft), {_SIZE: str(draft.size)}
            writer.tag = await self._objects.put_if(LEFTOVERS + key, data, tag=writer.tag, metadata=size)
        except (AlreadyExists, WrongState, NotFound) as error:
            raise ChunkOutOfOrder(
                "Another stream goes on with these bytes; get the upload and go on from what it has."
            ) from error
        writer.draft = draft

    async def _write_tail(self, key: str, writer: _Writer) -> None:
        if writer.tail != writer.draft.tail:
            await self._write(key, writer, replace(writer.draft, tail=bytes(writer.tail)))

    async def _send_part(self, key: str, writer: _Writer) -> None:
        if not writer.draft.upload_id:
            await self._send_first_part(key, writer)
        else:
            if not writer.mine:
                await self._write(key, writer, replace(writer.draft, tail=bytes(writer.tail)).claimed())
            # Until it is written down; a try that failed may still be on its way.
            writer.mine = False
            tag = await self._part(key, writer.draft, bytes(writer.tail))
            await self._write(key, writer, writer.draft.with_part(tag, len(writer.tail)))
        writer.mine = True
        writer.tail.clear()

    async def _send_first_part(self, key: str, writer: _Writer) -> None:
        draft, named = replace(writer.draft, upload_id=await self._objects.begin(key)), False
        try:
            tag = await self._part(key, draft, bytes(writer.tail))
            named = True
            await self._write(key, writer, draft.with_part(tag, len(writer.tail)))
        except ServiceError as error:
            # Where the record's write failed otherwise than by its condition, it may have been written all the same.
            if not named or isinstance(error, ChunkOutOfOrder):
                await self._objects.abort(key, draft.upload_id)
            raise

    async def _part(self, key: str, draft: Draft, data: bytes) -> str:
        try:
            return await self._objects.part(key, draft.upload_id, draft.next_part, data)
        except NotFound as error:
            # Removed by a rule of the bucket, or by its server: what is left is of no use.
            await self._objects.delete(LEFTOVERS + key)
            raise ChunkOutOfOrder("What was kept is gone from the object store; begin from offset 0.") from error

    async def _complete(self, key: str, writer: _Writer) -> None:
        if writer.tail:
            await self._send_part(key, writer)
        draft = writer.draft
        try:
            await complete(self._objects, key, draft.upload_id, [(number, tag) for number, tag, _ in draft.parts], draft.size)
        except NotFound as error:
            await self._objects.delete(LEFTOVERS + key)
            raise ChunkOutOfOrder("What was kept is gone from the object store; begin from offset 0.") from error

    async def _make_empty(self, key: str) -> None:
        try:
            await self._objects.put_if(key, b"")
        except AlreadyExists:
            return

    @staticmethod
    async def _whole(change: Coroutine[Any, Any, T]) -> T:
        """Whoever goes away in the middle of a change: it is made whole, so that what is known here stays true."""
        return await asyncio.shield(asyncio.ensure_future(change))

    def _lock(self, key: str) -> asyncio.Lock:
        return self._locks.setdefault(key, asyncio.Lock())
