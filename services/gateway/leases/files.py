"""Who drives a job: a lock file for each, held as long as its holder lives."""

import asyncio
import fcntl
import os
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from services.common.errors import StoreUnavailable
from services.gateway.keys import Ref
from services.gateway.options import check_id, is_id
from services.gateway.ports import Lease

_SUFFIX = ".lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class FileLease:
    """The right to drive a job, until it is released or this process ends."""

    ref: Ref
    """Which job."""

    token: int
    """Larger than that of every earlier lease of the job; goes with each write of its state."""

    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Never set: a lock stays with its process."""


class FileLeases:
    """Leases of the gateways that share a directory on one machine."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._files: dict[Ref, FileIO] = {}

    async def acquire(self, ref: Ref) -> FileLease | None:
        """See :class:`Leases`. Raises StoreUnavailable."""
        path = self._path(ref)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Without a buffer, so that a full disk is told by the write.
            file = path.open("a+b", buffering=0)
        except OSError as error:
            raise _unavailable(error) from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        if not _is_still(path, file):
            # Removed with its job between opening and locking.
            file.close()
            return None
        try:
            token = _next_token(file)
        except OSError as error:
            file.close()
            raise _unavailable(error) from error
        self._files[ref] = file
        return FileLease(ref=ref, token=token)

    async def release(self, lease: Lease, *, forget: bool = False) -> None:
        """See :class:`Leases`."""
        if forget:
            self._path(lease.ref).unlink(missing_ok=True)
        self._files.pop(lease.ref).close()

    async def jobs(self) -> list[Ref]:
        """See :class:`Leases`."""
        found = (Ref(path.parent.name, path.stem) for path in self._directory.glob(f"*/*{_SUFFIX}"))
        return sorted(ref for ref in found if all(is_id(part) for part in ref))

    async def freed(self, within_s: float) -> None:
        """See :class:`Leases`; who lets go of a lock says nothing."""
        await asyncio.sleep(within_s)

    def _path(self, ref: Ref) -> Path:
        for part in ref:
            check_id(part, "job_id")
        return self._directory / ref.owner / f"{ref.id}{_SUFFIX}"


def _unavailable(error: OSError) -> StoreUnavailable:
    return StoreUnavailable(f"Can't take the lease of a job: {error.strerror}.", retry_after_s=5)


def _is_still(path: Path, file: FileIO) -> bool:
    try:
        return path.stat().st_ino == os.fstat(file.fileno()).st_ino
    except FileNotFoundError:
        return False


def _next_token(file: FileIO) -> int:
    file.seek(0)
    token = int(file.read() or b"0") + 1
    file.seek(0)
    file.truncate()
    file.write(str(token).encode())
    return token
