"""Local copies of objects, for processes that read files: bounded, the longest unused ones go first, never one in use."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from services.common.errors import StoreUnavailable, TooLarge
from services.gateway.store.threads import in_thread

_SMALL_BYTES = 64 << 20

Fetch = Callable[[Path], Awaitable[None]]
"""Makes the copy."""


@dataclass(slots=True)
class _Copy:
    path: Path
    size: int
    users: int = 0
    whole: bool = False
    fetching: asyncio.Lock = field(default_factory=asyncio.Lock)


class FileCache:
    """Copies by name; a name stands for the same bytes for ever."""

    def __init__(self, new_path: Callable[[], Path], *, max_bytes: int, patience_s: float) -> None:
        """``new_path`` gives names of files that aren't there; who needs room waits ``patience_s`` for it."""
        self._new_path = new_path
        self._max_bytes = max_bytes
        self._patience_s = patience_s
        self._copies: OrderedDict[str, _Copy] = OrderedDict()
        self._used_bytes = 0
        self._released = asyncio.Condition()

    @contextlib.asynccontextmanager
    async def file(self, name: str, size: int, fetch: Fetch) -> AsyncIterator[Path]:
        """The copy of an object of ``size`` bytes, fetched once however many ask for it, to be read inside the block.

        Raises:
            TooLarge: it is larger than all copies together may be.
            StoreUnavailable: the copies in use leave no room for it.
        """
        copy = await self._copy(name, size)
        copy.users += 1
        try:
            async with copy.fetching:
                if not copy.whole:
                    await fetch(copy.path)
                    copy.whole = True
            yield copy.path
        finally:
            copy.users -= 1
            await asyncio.shield(asyncio.ensure_future(self._release(name, copy)))

    async def _copy(self, name: str, size: int) -> _Copy:
        if size > self._max_bytes:
            raise TooLarge(
                f"The file has {size} bytes and local copies may have {self._max_bytes}: set SEEDVR2_S3_CACHE_BYTES higher."
            )
        try:
            async with asyncio.timeout(self._patience_s), self._released:
                while name not in self._copies and not await self._has_room(size):
                    await self._released.wait()
        except TimeoutError as error:
            raise StoreUnavailable(
                "The files that are being read leave no room for another copy: set SEEDVR2_S3_CACHE_BYTES higher.",
                retry_after_s=30,
            ) from error
        if name not in self._copies:
            self._copies[name] = _Copy(self._new_path(), size)
            self._used_bytes += size
        self._copies.move_to_end(name)
        return self._copies[name]

    async def _has_room(self, size: int) -> bool:
        """Whether a copy fits, after removing what nobody uses."""
        for name, copy in list(self._copies.items()):
            if self._used_bytes + size <= self._max_bytes:
                return True
            if not copy.users:
                await self._remove(name, copy)
        # Whoever reads a large file may need a small one before it is done: making it wait could be for ever.
        return self._used_bytes + size <= self._max_bytes or size <= _SMALL_BYTES

    async def _remove(self, name: str, copy: _Copy) -> None:
        del self._copies[name]
        self._used_bytes -= copy.size
        await in_thread(copy.path.unlink, missing_ok=True)

    async def _release(self, name: str, copy: _Copy) -> None:
        async with self._released:
            if not copy.users and not copy.whole and self._copies.get(name) is copy:
                await self._remove(name, copy)
            self._released.notify_all()
