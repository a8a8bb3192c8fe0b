"""Files that are whole or absent: atomic, durable writes in a directory. Blocking; no asyncio."""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from services.common.durable import sync
from services.common.errors import AlreadyExists, NotFound, StoreFull, StoreUnavailable, WrongState

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
FULL_TEXT = "The artifact store is full: delete jobs or uploads that are no longer needed, or give it more space."


@contextlib.contextmanager
def store_errors() -> Iterator[None]:
    """Turn what the file system says into our errors."""
    try:
        yield
    except FileNotFoundError as error:
        raise NotFound("No such object in the artifact store.") from error
    except OSError as error:
        if error.errno in _FULL:
            raise StoreFull(FULL_TEXT, retry_after_s=60) from error
        raise StoreUnavailable(f"The artifact store failed: {error.strerror}.", retry_after_s=5) from error


def make_directories(directory: Path) -> None:
    """Create ``directory`` and its parents, durably."""
    missing, existing = list[Path](), directory
    while not existing.is_dir():
        missing.append(existing)
        existing = existing.parent
    for each in reversed(missing):
        try:
            each.mkdir(exist_ok=True)
            sync(each.parent)
        except FileNotFoundError:
            if each.parent.is_dir():
                raise
            # Somebody removed its parent, empty until now.
            make_directories(directory)
            return


def sync_file(file: BinaryIO) -> None:
    """Make what was written to ``file`` durable."""
    file.flush()
    os.fsync(file.fileno())


def tag_of(data: bytes) -> str:
    """Of a record's content."""
    return hashlib.sha256(data).hexdigest()[:32]


class Drafts:
    """A directory of unfinished files of one process; those of processes that are gone are removed at start."""

    def __init__(self, directory: Path) -> None:
        make_directories(directory)
        self._parent = directory
        self.tidy()
        self._directory, self._lock = _locked_directory(directory)

    def tidy(self) -> None:
        """Remove the files of processes that are gone."""
        for other in self._parent.iterdir():
            _remove_if_abandoned(other)

    def path(self, suffix: str = "") -> Path:
        """A new name."""
        return self._directory / (secrets.token_hex(8) + suffix)

    def close(self) -> None:
        """Remove the directory."""
        self._lock.close()
        shutil.rmtree(self._directory, ignore_errors=True)


def _locked_directory(parent: Path) -> tuple[Path, BinaryIO]:
    while True:
        directory = parent / secrets.token_hex(8)
        directory.mkdir()
        lock = (directory / "lock").open("wb")
        fcntl.flock(lock, fcntl.LOCK_EX)
        if directory.exists():
            return directory, lock
        # Somebody took it for abandoned before it was locked.
        lock.close()


def _remove_if_abandoned(directory: Path) -> None:
    with contextlib.suppress(OSError), (directory / "lock").open("rb") as lock:
        # Fails where its process lives.
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(directory, ignore_errors=True)


def place(draft: Path, target: Path, *, if_absent: bool = False) -> None:
    """Give a whole, synced file its name; the name appears with all its bytes or not at all.

    Raises:
        AlreadyExists: ``if_absent`` and the name is taken.
    """
    while True:
        make_directories(target.parent)
        try:
            _rename(draft, target, if_absent=if_absent)
            break
        except FileExistsError as error:
            raise AlreadyExists("There is such an object already.") from error
        except FileNotFoundError:
            # Somebody removed the directory, empty until now, after it was made.
            if not draft.exists():
                raise
    sync(target.parent)


def _rename(draft: Path, target: Path, *, if_absent: bool) -> None:
    if if_absent:
        os.link(draft, target)
        draft.unlink()
    else:
        draft.replace(target)


def put(drafts: Drafts, target: Path, data: bytes, *, if_absent: bool) -> None:
    """Write a small file atomically."""
    draft = drafts.path()
    try:
        with draft.open("xb") as file:
            file.write(data)
            sync_file(file)
        place(draft, target, if_absent=if_absent)
    finally:
        draft.unlink(missing_ok=True)


def put_if_match(drafts: Drafts, target: Path, data: bytes, tag: str, lock: Path) -> None:
    """Replace a small file that still has ``tag``; ``lock`` keeps other processes from doing the same meanwhile."""
    with lock.open("ab") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        if tag_of(target.read_bytes()) != tag:
            raise WrongState("The object was changed meanwhile.")
        put(drafts, target, data, if_absent=False)


def append(path: Path, offset: int, data: bytes) -> int | None:
    """Add ``data`` at the end of a file of ``offset`` bytes; None where it has another size."""
    make_directories(path.parent)
    with path.open("ab") as file:
        # Another process may continue the same object.
        fcntl.flock(file, fcntl.LOCK_EX)
        size = file.seek(0, os.SEEK_END)
        if size != offset:
            return None
        try:
            file.write(data)
            file.flush()
        except OSError:
            # A part of the piece may be there; offsets that callers know end at whole pieces.
            os.ftruncate(file.fileno(), size)
            raise
        return size + len(data)


def settle(part: Path) -> None:
    """Make durable what was appended, if anything was."""
    if part.exists():
        with part.open("ab") as file:
            sync_file(file)
        sync(part.parent)


def finish(part: Path, target: Path) -> None:
    """Give appended bytes their final name; none are an empty file, and a second time changes nothing."""
    if part.exists() or not target.exists():
        append(part, part.stat().st_size if part.exists() else 0, b"")
        settle(part)
        place(part, target)


def remove(path: Path, root: Path) -> None:
    """Remove a file and the directories that are empty without it, up to ``root``."""
    try:
        path.unlink()
    except FileNotFoundError:
        return
    with contextlib.suppress(OSError):
        for parent in path.parents:
            if parent == root:
                break
            parent.rmdir()
