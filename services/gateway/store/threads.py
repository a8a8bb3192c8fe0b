"""Blocking work on files, in threads, with our errors."""

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import ParamSpec, TypeVar

from services.gateway.store import files

PIECE_BYTES = 1 << 20

P = ParamSpec("P")
T = TypeVar("T")


async def in_thread(call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What ``call`` returns. Raises what :func:`files.store_errors` makes of its errors."""
    with files.store_errors():
        return await asyncio.to_thread(call, *args, **kwargs)


async def pieces_of(path: Path, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
    """A part of a file. Raises NotFound."""
    with await in_thread(path.open, "rb") as file:
        await in_thread(file.seek, offset)
        while length is None or length > 0:
            piece = await in_thread(file.read, PIECE_BYTES if length is None else min(length, PIECE_BYTES))
            if not piece:
                return
            yield piece
            length = None if length is None else length - len(piece)
