"""What a source holds: read once by a child process, then kept in memory and beside the job."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from services.common.errors import InvalidVideo, NotFound, UploadNotFound, WrongState
from services.gateway import keys
from services.gateway.keys import Ref
from services.gateway.ports import ContainerFiles
from services.gateway.source import SourceIndex, SourceInfo, index_from_json, index_to_json
from services.gateway.store.base import Store
from services.gateway.uploads import Upload, Uploads

_KEPT = 4
_FIELD = "request.source.upload_id"

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A complete upload and what it says of itself."""

    upload: Upload
    """Where the bytes are."""

    info: SourceInfo
    """Its streams."""


class Sources:
    """Looks into uploads. Methods raise UploadNotFound, WrongState for an incomplete upload, InvalidVideo."""

    def __init__(self, uploads: Uploads, store: Store, container: ContainerFiles) -> None:
        self._uploads = uploads
        self._store = store
        self._container = container
        self._infos: OrderedDict[str, SourceInfo] = OrderedDict()
        self._indices: OrderedDict[str, SourceIndex] = OrderedDict()

    async def look(self, ref: Ref) -> Source:
        """An upload's streams."""
        upload = await self._complete(ref)
        info = self._infos.get(upload.sha256)
        if info is None:
            async with self.file(ref) as path:
                info = await self._container.probe(path)
            _keep(self._infos, upload.sha256, info)
        return Source(upload=upload, info=info)

    async def index(self, source: Source, on_progress: Callable[[float], None] | None = None) -> SourceIndex:
        """All frames of a source."""
        sha256 = source.upload.sha256
        index = self._indices.get(sha256)
        if index is None:
            async with self.file(source.upload.ref) as path:
                index = await self._container.index(path, source.info, on_progress)
            _keep(self._indices, sha256, index)
        return index

    async def index_within(self, source: Source, seconds: float) -> SourceIndex | None:
        """The same, or None where it takes longer."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                return await self.index(source)
        return None

    async def job_index(self, ref: Ref, source: Source, on_progress: Callable[[float], None]) -> SourceIndex:
        """The same, kept with a job: its plan counts on it."""
        key = keys.job(ref, "index.json")
        with suppress(NotFound):
            return index_from_json((await self._store.get(key))[0])
        index = await self.index(source, on_progress)
        await self._store.put(key, index_to_json(index))
        return index

    @asynccontextmanager
    async def file(self, ref: Ref) -> AsyncIterator[Path]:
        """The upload as a file."""
        async with AsyncExitStack() as stack:
            try:
                path = await stack.enter_async_context(self._store.local_path(keys.upload(ref, "data")))
            except NotFound as error:
                # Deleted, or expired, since it was looked for.
                raise UploadNotFound(f"There is no upload {ref.id} any more.", field=_FIELD) from error
            yield path

    async def _complete(self, ref: Ref) -> Upload:
        try:
            upload = await self._uploads.get(ref)
        except UploadNotFound as error:
            raise UploadNotFound(error.message, field=_FIELD) from error
        if not upload.complete:
            raise WrongState(
                f"The upload {ref.id} is not complete, {upload.received_bytes} bytes are there; send the rest and finish it.",
                field=_FIELD,
            )
        if not upload.size_bytes:
            raise InvalidVideo("The file is empty; send one with a video in it.")
        return upload


def _keep(cache: OrderedDict[str, T], key: str, value: T) -> None:
    cache[key] = value
    if len(cache) > _KEPT:
        cache.popitem(last=False)
