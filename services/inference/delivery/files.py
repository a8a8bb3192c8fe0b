"""Durable file work on the model volume, and its failures in words."""

import contextlib
import errno
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from services.common.durable import sync
from services.common.errors import SettingsError, StoreFull, StoreUnavailable
from services.inference.delivery.progress import size_text

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_FORBIDDEN = frozenset({errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR})
_PIECE_BYTES = 8 << 20


@contextlib.contextmanager
def volume_errors(directory: Path) -> Iterator[None]:
    """Turn what the file system of ``directory`` says into our errors.

    Raises:
        StoreFull: no space left; what is there is kept.
        SettingsError: it can't be written by this user.
        StoreUnavailable: anything else.
    """
    try:
        yield
    except OSError as error:
        raise _in_words(error, directory) from error


def _in_words(error: OSError, directory: Path) -> Exception:
    if error.errno in _FULL:
        return StoreFull(f"No space is left in {directory}; what was received is kept. Make room, then fetch again.")
    if error.errno in _FORBIDDEN:
        return SettingsError(f"Models can't be written to {directory}: {error.strerror}.", field="directory")
    return StoreUnavailable(f"The model volume {directory} failed: {error.strerror or error}.")


def require_space(directory: Path, needed_bytes: int, keep_free_bytes: int) -> None:
    """Refuse what can't fit.

    Raises:
        StoreFull: fewer than ``needed_bytes`` are free besides ``keep_free_bytes``.
    """
    with volume_errors(directory):
        free = shutil.disk_usage(directory).free
    if needed_bytes and free < needed_bytes + keep_free_bytes:
        raise StoreFull(
            f"{directory} has {size_text(free)} free; the download needs {size_text(needed_bytes)} "
            f"and leaves {size_text(keep_free_bytes)} free. Make room, then fetch again."
        )


def size_of(path: Path) -> int:
    """In bytes; 0 where there is no file."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def sha256_of(path: Path, on_bytes: Callable[[int], None]) -> str:
    """Hash a file, telling how many bytes were read so far. Raises OSError."""
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        while piece := file.read(_PIECE_BYTES):
            digest.update(piece)
            on_bytes(file.tell())
    return digest.hexdigest()


def write_json(path: Path, record: Any, *, durable: bool = True) -> None:
    """Write a small file that is there whole or not at all. Raises OSError."""
    draft = path.with_name(f".{path.name}.draft")
    draft.write_text(json.dumps(record, indent=1) + "\n")
    if durable:
        sync(draft)
    draft.replace(path)
    if durable:
        sync(path.parent)


def read_json(path: Path) -> Any:
    """What :func:`write_json` wrote; None where there is nothing, or something else."""
    try:
        return json.loads(path.read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return None
