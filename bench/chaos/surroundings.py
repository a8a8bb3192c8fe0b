"""A disk that can be filled and a clock that can be set, for one process alone."""

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

LEFT_FREE_BYTES = 4 << 20
"""What a gateway leaves free on its disk."""

_DISK_BYTES = 24 << 20
_LIBRARIES = ("/usr/lib", "/usr/local/lib")


@dataclass(frozen=True, slots=True)
class Disk:
    """A small file system."""

    directory: Path
    """Where it is mounted."""

    def fill(self) -> None:
        """Leave no byte."""
        with contextlib.suppress(OSError), self._ballast.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1 << 16))

    def free(self) -> None:
        """Give the space back."""
        self._ballast.unlink(missing_ok=True)

    @property
    def _ballast(self) -> Path:
        return self.directory / "ballast"


@contextlib.contextmanager
def disk(directory: Path) -> Iterator[Disk]:
    """A disk of its own, in memory, mounted inside the block; needs the right to mount."""
    directory.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "chaos", str(directory)]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    if made.returncode:
        sys.exit(f"A small disk can't be mounted ({made.stderr.strip()}): run as root, or in `unshare --map-root-user --mount`.")
    try:
        yield Disk(directory)
    finally:
        # Lazily: a process that was killed a moment ago may still have a file open.
        subprocess.run(["umount", "--lazy", str(directory)], check=True)


class Clock:
    """A process's clock, by libfaketime; what measures durations (monotonic) stays true, as on a machine whose clock is set."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.set(0)

    def set(self, ahead_s: float) -> None:
        """Let it be so many seconds ahead; below 0: behind."""
        draft = self._file.with_suffix(".draft")
        draft.write_text(f"{ahead_s:+g}s\n")
        draft.replace(self._file)

    @property
    def environment(self) -> dict[str, str]:
        """Of the process."""
        return {
            "LD_PRELOAD": str(_library()), "FAKETIME_TIMESTAMP_FILE": str(self._file), "FAKETIME_CACHE_DURATION": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1", "FAKETIME_DISABLE_SHM": "1", "NO_FAKE_STAT": "1",
        }  # fmt: skip


def _library() -> Path:
    found = [path for root in _LIBRARIES for path in Path(root).glob("**/faketime/libfaketimeMT.so.1")]
    if not found:
        sys.exit("libfaketime is missing: apt-get install faketime")
    return found[0]
