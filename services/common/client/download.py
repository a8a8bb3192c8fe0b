"""A download that goes on from the bytes that an earlier try left on disk."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, BinaryIO

from services.common.client.calls import Reading
from services.common.durable import grown_when_done
from services.common.errors import Unavailable, WrongState
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.transfer import OnProgress, write_pieces

Read = Callable[[int, int], Awaitable[Reading]]
"""Reads an object from an offset on, so many bytes of it; 0: to the end."""

_BLOCK_BYTES = 1 << 20


async def download(read: Read, path: Path, on_progress: OnProgress | None) -> pb.ObjectInfo:
    """Write an object to ``path``, which appears when it is whole and its SHA-256 was checked.

    Raises:
        Unavailable: it arrived damaged. WrongState: it changed meanwhile, or somebody else is writing it.
        OSError: the file can't be written.
    """
    info = await _describe(read)
    with _kept(path, info) as file:
        digest = await asyncio.to_thread(_digest, file, info.size_bytes)
        kept = file.tell()
        if kept < info.size_bytes:
            now, pieces = await read(kept, 0)
            async with contextlib.aclosing(pieces):
                if now != info:
                    raise WrongState("The file changed while it was read; begin again.")
                await write_pieces(pieces, file, digest, done=kept, size_bytes=info.size_bytes, on_progress=on_progress)
        if digest.hexdigest() != info.sha256:
            file.truncate(0)
            raise Unavailable("The file arrived damaged; download it again.")
    return info


async def _describe(read: Read) -> pb.ObjectInfo:
    info, pieces = await read(0, 1)
    async for _ in pieces:
        pass
    return info


@contextlib.contextmanager
def _kept(path: Path, info: pb.ObjectInfo) -> Any:
    try:
        # The name tells which content it is the beginning of, so that two never mix.
        with grown_when_done(path, info.sha256[:16]) as file:
            yield file
    except BlockingIOError as error:
        raise WrongState(f"Another process is downloading {path.name} here; wait for it, or choose another name.") from error


def _digest(file: BinaryIO, size_bytes: int) -> Any:
    """SHA-256 of what is there; the file is then at its end. More than ``size_bytes`` is not wanted."""
    if os.fstat(file.fileno()).st_size > size_bytes:
        file.truncate(0)
    file.seek(0)
    digest = hashlib.sha256()
    while block := file.read(_BLOCK_BYTES):
        digest.update(block)
    return digest
