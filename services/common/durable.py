"""Files that are whole or absent, also after the machine has stopped. Blocking; standard library only."""

import contextlib
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
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Make a file, or the names in a directory, durable."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
