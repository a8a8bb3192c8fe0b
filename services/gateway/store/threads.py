"""Blocking work on files, in threads, with our errors."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, Literal, ParamSpec, TypeVar

from services.common.errors import ServiceError
from services.gateway.store import files

PIECE_BYTES = 1 << 20

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``call`` returns. Raises what :func:`files.store_errors` makes of its errors."""
    with files.store_errors():
        return await asyncio.to_thread(call, *args, **kwargs)


@contextlib.asynccontextmanager
async def opened(path: Path, mode: Literal["rb", "r+b", "wb", "xb"]) -> AsyncIterator[BinaryIO]:
    """A file, closed at the end of the block, and also where who waits for it is cancelled. Raises our errors, closing too."""
    opening = asyncio.create_task(in_thread(_open, path, mode))
    try:
        file = await asyncio.shield(opening)
    except asyncio.CancelledError:
        # A thread can't be cancelled.
        with contextlib.suppress(ServiceError):
            (await opening).close()
        raise
    # Closing a file writes, too, what it still holds.
    with files.store_errors(), file:
        yield file


def _open(path: Path, mode: Literal["rb", "r+b", "wb", "xb"]) -> BinaryIO:
    return path.open(mode)


async def pieces_of(path: Path, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
    """A part of a file. Raises NotFound."""
    async with opened(path, "rb") as file:
        await in_thread(file.seek, offset)
        while length is None or length > 0:
            piece = await in_thread(file.read, PIECE_BYTES if length is None else min(length, PIECE_BYTES))
            if not piece:
                return
            yield piece
            length = None if length is None else length - len(piece)
