"""The artifact store in a directory of this machine."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator
from pathlib import Path

from services.common.errors import ChunkOutOfOrder, NotFound, SettingsError, StoreFull
from services.gateway.store import files
from services.gateway.store.base import check_key
from services.gateway.store.threads import in_thread, opened, pieces_of

_PART = ".part"


class LocalStore:
    """A :class:`Store`. Objects are files under their keys; unfinished ones end with ``.part``."""

    def __init__(self, root: Path, *, min_free_bytes: int) -> None:
        """Open or create the directory ``root``; artifacts leave ``min_free_bytes`` of its file system free.

        Raises:
            SettingsError: it can't be written.
        """
        self._root = root.absolute()
        self._min_free_bytes = min_free_bytes
        try:
            files.make_directories(self._root)
            self._drafts = files.Drafts(self._root / ".drafts")
        except OSError as error:
            raise SettingsError(f"Can't keep artifacts in {root}: {error.strerror}; choose another directory.") from error

    def close(self) -> None:
        """Remove this process's unfinished files."""
        self._drafts.close()

    async def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """See :class:`Store`."""
        path = self._path(key)
        if if_match is None:
            await in_thread(files.put, self._drafts, path, data, if_absent=if_absent)
        else:
            await in_thread(files.put_if_match, self._drafts, path, data, if_match, self._root / ".lock")
        return files.tag_of(data)

    async def get(self, key: str) -> tuple[bytes, str]:
        """See :class:`Store`."""
        data = await in_thread(self._path(key).read_bytes)
        return data, files.tag_of(data)

    async def size(self, key: str) -> int:
        """See :class:`Store`."""
        return (await in_thread(self._path(key).stat)).st_size

    async def modified(self, key: str) -> float:
        """See :class:`Store`."""
        with contextlib.suppress(NotFound):
            return (await in_thread(self._part(key).stat)).st_mtime
        return (await in_thread(self._path(key).stat)).st_mtime

    async def keys(self, prefix: str) -> list[str]:
        """See :class:`Store`."""
        return await in_thread(self._list, self._path(prefix.removesuffix("/")))

    async def names(self, prefix: str) -> list[str]:
        """See :class:`Store`."""
        return await in_thread(self._names, self._path(prefix.removesuffix("/")))

    async def delete(self, key: str) -> None:
        """See :class:`Store`."""
        await in_thread(files.remove, self._path(key), self._root)
        await in_thread(files.remove, self._part(key), self._root)

    async def write(self, key: str, pieces: AsyncIterable[bytes]) -> int:
        """See :class:`Store`."""
        path, size = self._path(key), 0
        async with self.scratch("") as draft:
            async with opened(draft, "xb") as file:
                async for piece in pieces:
                    await self.require_space(len(piece))
                    size += await in_thread(file.write, piece)
                await in_thread(files.sync_file, file)
            await in_thread(files.place, draft, path)
        return size

    async def adopt(self, key: str, path: Path) -> None:
        """See :class:`Store`."""
        async with opened(path, "r+b") as file:
            await in_thread(files.sync_file, file)
        await in_thread(files.place, path, self._path(key))

    async def read(self, key: str, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """See :class:`Store`."""
        async for piece in pieces_of(self._path(key), offset, length):
            yield piece

    @contextlib.asynccontextmanager
    async def local_path(self, key: str) -> AsyncIterator[Path]:
        """See :class:`Store`."""
        path = self._path(key)
        await in_thread(path.stat)
        yield path

    @contextlib.asynccontextmanager
    async def scratch(self, suffix: str) -> AsyncIterator[Path]:
        """See :class:`Store`."""
        await self.require_space()
        path = self._drafts.path(suffix)
        try:
            yield path
        finally:
            await asyncio.shield(in_thread(path.unlink, missing_ok=True))

    async def append(self, key: str, offset: int, data: bytes) -> int:
        """See :class:`Store`."""
        await self.require_space(len(data))
        size = await in_thread(files.append, self._part(key), offset, data)
        if size is None:
            raise ChunkOutOfOrder(f"The bytes that are kept don't end at offset {offset}.")
        return size

    async def settle(self, key: str) -> None:
        """See :class:`Store`."""
        await in_thread(files.settle, self._part(key))

    async def appended(self, key: str) -> int:
        """See :class:`Store`."""
        for path in (self._part(key), self._path(key)):
            with contextlib.suppress(NotFound):
                return (await in_thread(path.stat)).st_size
        return 0

    async def finish(self, key: str) -> None:
        """See :class:`Store`."""
        await in_thread(files.finish, self._part(key), self._path(key))

    async def tidy(self) -> None:
        """See :class:`Store`."""
        await in_thread(self._drafts.tidy)

    async def require_space(self, size_bytes: int = 0) -> None:
        """See :class:`Store`."""
        free = (await in_thread(shutil.disk_usage, self._root)).free
        if free - size_bytes < self._min_free_bytes:
            raise StoreFull(files.FULL_TEXT, retry_after_s=60)

    async def link(self, key: str, *, seconds: int, filename: str, media_type: str) -> str | None:
        """See :class:`Store`."""
        return None

    def _path(self, key: str) -> Path:
        check_key(key)
        return self._root / key

    def _part(self, key: str) -> Path:
        path = self._path(key)
        return path.with_name(path.name + _PART)

    def _names(self, directory: Path) -> list[str]:
        if not directory.is_dir():
            return []
        return sorted({name.removesuffix(_PART) for name in os.listdir(directory)})

    def _list(self, directory: Path) -> list[str]:
        found = (Path(at) / name for at, _, names in os.walk(directory) for name in names)
        return sorted(str(path.relative_to(self._root)) for path in found if path.suffix != _PART)
