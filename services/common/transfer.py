"""Files to streams of bytes and back, and how long to go on when a stream breaks."""

import asyncio
import hashlib
import os
import time
from collections.abc import AsyncGenerator, AsyncIterable, Callable
from pathlib import Path
from typing import Any, BinaryIO

from services.common.errors import ServiceError
from services.common.rpc.server import PIECE_BYTES

OnProgress = Callable[[int, int], None]
"""Called with bytes done and bytes in all."""

_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 3.0


class Patience:
    """How long to go on trying while nothing arrives, with growing pauses."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self.renew()

    def renew(self) -> None:
        """Something arrived."""
        self._until = time.monotonic() + self._limit_s
        self._pause_s = _FIRST_PAUSE_S

    def left_s(self) -> float:
        """Seconds until patience ends."""
        return max(0.0, self._until - time.monotonic())

    async def wait(self, error: ServiceError) -> None:
        """Pause before the next try; raises ``error`` where there is no time for one."""
        if self.left_s() <= self._pause_s:
            raise error
        await asyncio.sleep(self._pause_s)
        self._pause_s = min(2 * self._pause_s, _LONGEST_PAUSE_S)


def measure_file(path: Path) -> tuple[int, str]:
    """A file's size in bytes and its SHA-256. Raises OSError."""
    with path.open("rb") as file:
        return os.fstat(file.fileno()).st_size, hashlib.file_digest(file, "sha256").hexdigest()


async def file_pieces(path: Path, offset: int, size_bytes: int, on_progress: OnProgress | None) -> AsyncGenerator[bytes, None]:
    """A file of ``size_bytes`` from ``offset`` on; progress is told after a piece was taken."""
    with await asyncio.to_thread(path.open, "rb") as file:
        file.seek(offset)
        while piece := await asyncio.to_thread(file.read, PIECE_BYTES):
            yield piece
            offset += len(piece)
            if on_progress:
                on_progress(offset, size_bytes)


async def write_pieces(
    pieces: AsyncIterable[bytes], file: BinaryIO, digest: Any, *, done: int, size_bytes: int, on_progress: OnProgress | None
) -> None:
    """Write a stream to the end of a file that has ``done`` of ``size_bytes``; what is written goes into ``digest`` too."""
    async for piece in pieces:
        digest.update(piece)
        await asyncio.to_thread(file.write, piece)
        done += len(piece)
        if on_progress:
            on_progress(done, size_bytes)
