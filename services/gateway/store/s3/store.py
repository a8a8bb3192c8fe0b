"""The artifact store in a bucket."""

import asyncio
import contextlib
import hashlib
import shutil
import time
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

from minio.sse import SseKMS, SseS3

from services.common.errors import NotFound, SettingsError, StoreFull
from services.gateway.store import files
from services.gateway.store.base import check_key
from services.gateway.store.cache import FileCache
from services.gateway.store.s3.bucket import Bucket
from services.gateway.store.s3.calls import Calls, OnFailure
from services.gateway.store.s3.client import connect, signer
from services.gateway.store.s3.faults import FULL_TEXT, Damaged, our_error
from services.gateway.store.s3.objects import Head, Objects, check_hash
from services.gateway.store.s3.parts import in_parts, send
from services.gateway.store.s3.settings import S3Settings
from services.gateway.store.s3.unfinished import LEFTOVERS, Unfinished
from services.gateway.store.threads import in_thread, opened, pieces_of

_FULL_S = 10.0
_LONGEST_LINK_S = 7 * 24 * 3600
_SCRATCH_TEXT = "The gateway's scratch disk is full: give SEEDVR2_S3_SCRATCH_DIRECTORY more space, or try again later."


class S3Store:
    """A :class:`Store`. Objects are objects of the bucket; unfinished ones are parts, and a record under their key."""

    def __init__(self, settings: S3Settings, *, min_free_bytes: int = 0, on_failure: OnFailure = lambda kind: None) -> None:
        """Scratch files and local copies leave ``min_free_bytes`` of their file system free.

        Raises:
            SettingsError: a file of the settings can't be read, or the scratch directory not be written.
        """
        self._bucket = settings.bucket
        self._min_free_bytes = min_free_bytes
        self._part_bytes = settings.part_bytes
        client = connect(settings)
        self._signer = signer(settings)
        self._calls = Calls(threads=settings.connections, tries=settings.tries, retry_s=settings.retry_s, on_failure=on_failure)
        self.objects = Objects(
            client, self._calls, bucket=settings.bucket, prefix=settings.prefix, encryption=encryption_headers(settings)
        )
        """What it is made of."""
        self.bucket = Bucket(client, self._calls, self.objects, settings)
        """What is done with the bucket as a whole."""
        self._unfinished = Unfinished(self.objects, part_bytes=settings.part_bytes)
        self._scratch = Path(settings.scratch_directory).absolute()
        try:
            self._drafts = files.Drafts(self._scratch)
        except OSError as error:
            raise SettingsError(f"Can't keep scratch files in {self._scratch}: {error.strerror}; choose another one.") from error
        self._cache = FileCache(self._drafts.path, max_bytes=settings.cache_bytes, patience_s=settings.timeout_s)
        self._full_until = 0.0

    def close(self) -> None:
        """Remove this process's files."""
        self._calls.close()
        self._drafts.close()

    # ---- records ----

    async def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """See :class:`Store`."""
        check_key(key)
        with self._noting_full():
            if if_absent or if_match is not None:
                return await self.objects.put_if(key, data, tag=if_match)
            return await self.objects.put(key, data)

    async def get(self, key: str) -> tuple[bytes, str]:
        """See :class:`Store`."""
        check_key(key)
        return await self.objects.get(key)

    async def size(self, key: str) -> int:
        """See :class:`Store`."""
        check_key(key)
        return (await self.objects.head(key)).size

    async def modified(self, key: str) -> float:
        """See :class:`Store`."""
        check_key(key)
        with contextlib.suppress(NotFound):
            return await self._unfinished.modified(key)
        return (await self.objects.head(key)).modified

    async def keys(self, prefix: str) -> list[str]:
        """See :class:`Store`."""
        check_key(prefix.removesuffix("/"))
        return await self.objects.keys(prefix)

    async def names(self, prefix: str) -> list[str]:
        """See :class:`Store`."""
        check_key(prefix.removesuffix("/"))
        return sorted({*await self.objects.names(prefix), *await self.objects.names(LEFTOVERS + prefix)})

    async def delete(self, key: str) -> None:
        """See :class:`Store`."""
        check_key(key)
        await self._unfinished.delete(key)
        await self.objects.delete(key)

    # ---- artifacts ----

    async def write(self, key: str, pieces: AsyncIterable[bytes]) -> int:
        """See :class:`Store`."""
        check_key(key)
        with self._noting_full():
            async with contextlib.aclosing(in_parts(pieces, self._part_bytes)) as parts:
                return await send(self.objects, key, parts)

    async def adopt(self, key: str, path: Path) -> None:
        """See :class:`Store`."""
        await self.write(key, pieces_of(path))
        await in_thread(path.unlink)

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """See :class:`Store`."""
        check_key(key)
        async with contextlib.aclosing(self.objects.read(key, offset, length)) as pieces:
            async for piece in pieces:
                yield piece

    @contextlib.asynccontextmanager
    async def local_path(self, key: str) -> AsyncIterator[Path]:
        """See :class:`Store`."""
        check_key(key)
        head = await self.objects.head(key)
        async with self._cache.file(f"{key}@{head.tag}", head.size, lambda path: self._fetch(key, head, path)) as path:
            yield path

    @contextlib.asynccontextmanager
    async def scratch(self, suffix: str) -> AsyncIterator[Path]:
        """See :class:`Store`."""
        await self._require_scratch()
        path = self._drafts.path(suffix)
        try:
            yield path
        finally:
            await asyncio.shield(in_thread(path.unlink, missing_ok=True))

    async def link(self, key: str, *, seconds: int, filename: str, media_type: str) -> str | None:
        """See :class:`Store`."""
        check_key(key)
        if not 1 <= seconds <= _LONGEST_LINK_S:
            raise ValueError(f"a link can't hold for {seconds} seconds")
        shown = {
            "response-content-type": media_type,
            "response-content-disposition": f"attachment; filename*=UTF-8''{quote(filename, safe='')}",
        }
        return await self._calls.run(
            lambda: self._signer.get_presigned_url(
                "GET", self._bucket, self.objects.name(key), timedelta(seconds=seconds), dict(shown)
            )
        )

    # ---- unfinished objects ----

    async def append(self, key: str, offset: int, data: bytes) -> int:
        """See :class:`Store`."""
        check_key(key)
        with self._noting_full():
            return await self._unfinished.append(key, offset, data)

    async def settle(self, key: str) -> None:
        """See :class:`Store`."""
        await self._unfinished.settle(key)

    async def appended(self, key: str) -> int:
        """See :class:`Store`."""
        for size in (self._unfinished.size, self.size):
            with contextlib.suppress(NotFound):
                return await size(key)
        return 0

    async def finish(self, key: str) -> None:
        """See :class:`Store`."""
        check_key(key)
        await self._unfinished.finish(key)

    async def tidy(self) -> None:
        """See :class:`Store`."""
        await in_thread(self._drafts.tidy)
        await self.bucket.tidy()

    async def require_space(self, size_bytes: int = 0) -> None:
        """See :class:`Store`. S3 doesn't tell how much space is left: what it said of late to a write counts."""
        if time.monotonic() < self._full_until:
            raise StoreFull(FULL_TEXT, retry_after_s=60)
        await self._require_scratch()

    # ---- the scratch disk ----

    async def _require_scratch(self, size_bytes: int = 0) -> None:
        free = (await in_thread(shutil.disk_usage, self._scratch)).free
        if free - size_bytes < self._min_free_bytes:
            raise StoreFull(_SCRATCH_TEXT, retry_after_s=60)

    async def _fetch(self, key: str, head: Head, path: Path) -> None:
        """Make a file of an object, all of one version, compared with the hash it was written with."""
        await self._require_scratch(head.size)
        digest = hashlib.sha256()
        try:
            reading = contextlib.aclosing(self.objects.read(key, tag=head.tag))
            async with opened(path, "wb") as file, reading as pieces:
                async for piece in pieces:
                    await in_thread(file.write, piece)
                    digest.update(piece)
            check_hash(head, digest.hexdigest())
        except StoreFull as error:
            raise StoreFull(_SCRATCH_TEXT, retry_after_s=60) from error
        except Damaged as error:
            raise our_error(error) from error

    @contextlib.contextmanager
    def _noting_full(self) -> Iterator[None]:
        try:
            yield
        except StoreFull:
            self._full_until = time.monotonic() + _FULL_S
            raise


def encryption_headers(settings: S3Settings) -> dict[str, str]:
    """With which objects are written."""
    if not settings.encryption:
        return {}
    headers = SseS3().headers() if settings.encryption == "AES256" else SseKMS(settings.kms_key, {}).headers()
    # Without a key the bucket's own is used.
    return {name: value for name, value in headers.items() if value}
