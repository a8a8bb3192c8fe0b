"""Files that are whole or absent, also after the machine has stopped. Blocking; standard library only."""

import contextlib
import errno
import fcntl
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO


@contextlib.contextmanager
def replaced_when_done(path: Path) -> Iterator[BinaryIO]:
    """A new file beside ``path`` that takes its place, durably, when the block ends well and is removed when not."""
    # A process id would not do for a name: in containers that share a volume it is often the same.
    part = path.with_name(f".{path.name}.{secrets.token_hex(8)}.part")
    try:
        with part.open("xb") as file:
            yield file
            _put_in_place(part, file, path)
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def grown_when_done(path: Path, content: str) -> Iterator[BinaryIO]:
    """The same for bytes that arrive in several tries: what was written stays beside ``path``, for the next one to go on.

    ``content`` names what is being written, so that only its own bytes are continued. The file is open for reading and
    appending; it goes when the block ends badly and nothing is in it.

    Raises:
        BlockingIOError: somebody else is writing it.
    """
    part = path.with_name(f".{path.name}.{content}.part")
    with part.open("a+b") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not _is_still(part, file):
            raise BlockingIOError(errno.EAGAIN, "it has just been finished", str(part))
        try:
            yield file
            _put_in_place(part, file, path)
        finally:
            file.flush()
            if _is_still(part, file) and not part.stat().st_size:
                part.unlink()


def _put_in_place(part: Path, file: BinaryIO, path: Path) -> None:
    file.flush()
    os.fsync(file.fileno())
    part.replace(path)
    sync(path.parent)


def _is_still(path: Path, file: BinaryIO) -> bool:
    return path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno()))


def sync(path: Path) -> None:
    """Make a file, or the names in a directory, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
