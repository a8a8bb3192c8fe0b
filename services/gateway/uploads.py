"""Uploads: bytes that arrive in one or several streams, and are complete or not."""

import asyncio
import contextlib
import hashlib
import json
import re
import secrets
import time
from collections.abc import AsyncIterable, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from services.common.errors import (
    AlreadyExists,
    ChunkOutOfOrder,
    InvalidInput,
    InvalidOption,
    NotFound,
    ServiceError,
    TooLarge,
    UploadNotFound,
    WrongState,
)
from services.common.metrics import GatewayMetrics
from services.common.records import record_fields
from services.gateway import keys
from services.gateway.keys import Ref
from services.gateway.options import check_id
from services.gateway.store.base import Store

_SCHEMA_VERSION = 1
_MAX_NAME_CHARACTERS = 255
_MAX_PIECE_BYTES = 1 << 20
# Whoever is forgotten has the bytes hashed again in the end.
_MAX_ARRIVING = 1000
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f/\\]")


@dataclass(frozen=True, slots=True, kw_only=True)
class Upload:
    """An upload as it is now."""

    ref: Ref
    """Names it."""

    filename: str
    """For people."""

    size_bytes: int
    """As declared, or when complete; 0: neither."""

    created_at: float
    """Seconds since 1970."""

    received_bytes: int = 0
    """Kept so far."""

    complete: bool = False
    """Usable."""

    sha256: str = ""
    """Once complete."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finish:
    """No more bytes."""

    sha256: str
    """To check; may be empty."""


@dataclass(slots=True)
class _Arriving:
    """What this process has seen of an upload."""

    created_at: float
    """Tells uploads apart that had the same id one after the other."""
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    stream: int = 0
    """Number of the stream that may write: the latest."""
    digest: Any = field(default_factory=hashlib.sha256)
    hashed_bytes: int = 0


class Uploads:
    """All uploads. Methods raise UploadNotFound, and StoreUnavailable where the store fails."""

    def __init__(
        self, store: Store, metrics: GatewayMetrics, *, max_bytes: int, users: Callable[[Ref], Awaitable[Sequence[str]]]
    ) -> None:
        """``users`` tells which jobs need an upload."""
        self._store = store
        self._users = users
        self._metrics = metrics
        self._max_bytes = max_bytes
        self._arriving: dict[Ref, _Arriving] = {}

    async def create(self, ref: Ref, filename: str, size_bytes: int) -> Upload:
        """Begin an upload, or find the one with this id and the same values.

        Raises:
            InvalidOption: a value that can't be used.
            TooLarge: more bytes than allowed. StoreFull: more than fit.
            AlreadyExists: the id is taken by another one.
        """
        ref = ref if ref.id else Ref(ref.owner, secrets.token_hex(8))
        check_id(ref.id, "upload_id")
        _check_name(filename)
        self._check_size(size_bytes)
        record = {"filename": filename, "size_bytes": size_bytes, "created_at": time.time()}
        try:
            known = await self._record(ref)
        except UploadNotFound:
            await self._store.require_space(size_bytes)
            known = await self._put(ref, record)
        if (known["filename"], known["size_bytes"]) != (filename, size_bytes):
            raise AlreadyExists(f"The id {ref.id} belongs to another upload; choose another.", field="upload_id")
        return await self.get(ref)

    async def get(self, ref: Ref) -> Upload:
        """An upload as it is now."""
        check_id(ref.id, "upload_id")
        record = await self._record(ref)
        values = {name: record[name] for name in ("filename", "size_bytes", "created_at")}
        try:
            done = _fields((await self._store.get(keys.upload(ref, "complete.json")))[0])
        except NotFound:
            received = await self._store.appended(keys.upload(ref, "data"))
            return Upload(ref=ref, received_bytes=received, **values)
        values["size_bytes"] = done["size_bytes"]
        return Upload(ref=ref, received_bytes=done["size_bytes"], complete=True, sha256=done["sha256"], **values)

    async def write(self, ref: Ref, offset: int, messages: AsyncIterable[bytes | Finish]) -> Upload:
        """Keep bytes that continue the upload, up to the stream's end or its finish.

        Raises:
            ChunkOutOfOrder: the upload doesn't have ``offset`` bytes. WrongState: it is complete, or another stream goes on.
            TooLarge, StoreFull: no more fits; what was kept before stays.
            InvalidInput: more or fewer bytes than declared, or other ones than the hash says; what was kept stays.
        """
        upload = await self.get(ref)
        _check_offset(upload, offset)
        arriving = self._arriving_of(upload)
        # The latest stream is the one whose client lives; an older one may be the half of a broken connection.
        arriving.stream += 1
        stream = arriving.stream
        try:
            async for message in messages:
                async with arriving.writing:
                    if arriving.stream != stream:
                        raise WrongState("Another stream continues this upload; get the upload and go on from what it has.")
                    if isinstance(message, Finish):
                        return await self._finish(upload, arriving, offset, message)
                    offset = await self._keep(upload, arriving, offset, message)
        finally:
            with _hashed_anew(arriving):
                await self._store.settle(keys.upload(ref, "data"))
        return await self.get(ref)

    async def empty(self, ref: Ref) -> None:
        """Drop the bytes of an upload that is not complete, to begin again."""
        arriving = self._arriving_of(await self.get(ref))
        async with arriving.writing:
            arriving.stream += 1
            await self._store.delete(keys.upload(ref, "data"))
            arriving.digest, arriving.hashed_bytes = hashlib.sha256(), 0

    async def delete(self, ref: Ref) -> None:
        """Remove an upload with its bytes.

        Raises:
            WrongState: a job that has not ended needs it.
        """
        upload = await self.get(ref)
        await self._require_unused(ref)
        arriving = self._arriving_of(upload)
        async with arriving.writing:
            arriving.stream += 1
            await self._store.delete(keys.upload(ref, "complete.json"))
            try:
                await self._require_unused(ref)
            except WrongState:
                # A job was created meanwhile, by somebody who saw it complete.
                await self._put(ref, {"size_bytes": upload.size_bytes, "sha256": upload.sha256}, "complete.json")
                raise
            for name in ("data", "upload.json"):
                await self._store.delete(keys.upload(ref, name))
        self._arriving.pop(ref, None)

    async def _require_unused(self, ref: Ref) -> None:
        if users := await self._users(ref):
            raise WrongState(f"The job {users[0]} still needs this upload; cancel it, or wait until it has ended.")

    def _arriving_of(self, upload: Upload) -> _Arriving:
        known = self._arriving.get(upload.ref)
        if known is not None and known.created_at == upload.created_at:
            return known
        if known is not None:
            # It was deleted, and begun anew, at another gateway.
            known.stream += 1
        for ref in list(self._arriving)[:-_MAX_ARRIVING]:
            del self._arriving[ref]
        self._arriving[upload.ref] = _Arriving(upload.created_at)
        return self._arriving[upload.ref]

    async def _keep(self, upload: Upload, arriving: _Arriving, offset: int, data: bytes) -> int:
        if len(data) > _MAX_PIECE_BYTES:
            raise InvalidInput(f"A piece of {len(data)} bytes came; send at most {_MAX_PIECE_BYTES} at a time.", field="data")
        if upload.size_bytes and offset + len(data) > upload.size_bytes:
            raise InvalidInput(
                f"The upload was declared with {upload.size_bytes} bytes and more came; begin another one.", field="data"
            )
        self._check_size(offset + len(data))
        with _hashed_anew(arriving):
            end = await self._store.append(keys.upload(upload.ref, "data"), offset, data)
        if arriving.hashed_bytes == offset:
            arriving.digest.update(data)
            arriving.hashed_bytes = end
        self._metrics.upload_bytes.inc(len(data))
        return end

    async def _finish(self, upload: Upload, arriving: _Arriving, size_bytes: int, finish: Finish) -> Upload:
        if upload.size_bytes not in (0, size_bytes):
            raise InvalidInput(
                f"The upload was declared with {upload.size_bytes} bytes and has {size_bytes}; send the rest, then finish.",
                field="finish",
            )
        if arriving.hashed_bytes != size_bytes:
            # Another process, or an earlier stream of this one, took the beginning; it can be read once it is an object.
            await self._store.finish(keys.upload(upload.ref, "data"))
            await self._hash(upload.ref, arriving, size_bytes)
        sha256 = arriving.digest.hexdigest()
        if finish.sha256 and finish.sha256.lower() != sha256:
            raise InvalidInput(
                f"The bytes that arrived have another SHA-256 ({sha256}) than the file; delete this upload and send it again.",
                field="finish.sha256",
            )
        await self._store.finish(keys.upload(upload.ref, "data"))
        await self._put(upload.ref, {"size_bytes": size_bytes, "sha256": sha256}, "complete.json")
        self._arriving.pop(upload.ref, None)
        return await self.get(upload.ref)

    async def _hash(self, ref: Ref, arriving: _Arriving, size_bytes: int) -> None:
        digest = hashlib.sha256()
        async for piece in self._store.read(keys.upload(ref, "data")):
            await asyncio.to_thread(digest.update, piece)
        arriving.digest, arriving.hashed_bytes = digest, size_bytes

    async def _record(self, ref: Ref) -> dict[str, Any]:
        try:
            data, _ = await self._store.get(keys.upload(ref, "upload.json"))
        except NotFound as error:
            raise UploadNotFound(f"There is no upload {ref.id}.", field="upload_id") from error
        return _fields(data)

    async def _put(self, ref: Ref, record: dict[str, Any], name: str = "upload.json") -> dict[str, Any]:
        try:
            data = json.dumps({"schema_version": _SCHEMA_VERSION, **record}).encode()
            await self._store.put(keys.upload(ref, name), data, if_absent=True)
        except AlreadyExists:
            record = _fields((await self._store.get(keys.upload(ref, name)))[0])
        return record

    def _check_size(self, size_bytes: int) -> None:
        if size_bytes < 0:
            raise InvalidOption(f"The size is {size_bytes} bytes; give the file's size, or 0.", field="size_bytes")
        if size_bytes > self._max_bytes:
            raise TooLarge(
                f"An upload has at most {self._max_bytes} bytes here; cut the video, or compress it more.", field="size_bytes"
            )


@contextlib.contextmanager
def _hashed_anew(arriving: _Arriving) -> Iterator[None]:
    """Where the store fails it may lose what came last and was hashed: in the end all that it has is hashed again."""
    try:
        yield
    except ServiceError:
        arriving.hashed_bytes = -1
        raise


def _fields(data: bytes) -> dict[str, Any]:
    return record_fields(data, _SCHEMA_VERSION, "an upload")


def _check_name(filename: str) -> None:
    if len(filename) > _MAX_NAME_CHARACTERS or _UNPRINTABLE.search(filename):
        raise InvalidOption(
            f"The file name is longer than {_MAX_NAME_CHARACTERS} characters, or has slashes or control characters.",
            field="filename",
        )


def _check_offset(upload: Upload, offset: int) -> None:
    if upload.complete:
        raise WrongState("This upload is complete; use it, or begin another.")
    if offset != upload.received_bytes:
        raise ChunkOutOfOrder(
            f"{upload.received_bytes} bytes are kept, so go on from offset {upload.received_bytes}, not {offset}.", field="offset"
        )
