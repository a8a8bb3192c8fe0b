"""What was read from files, read again when they have changed; a mounted Secret changes by a symbolic link that is swapped."""

import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Generic, TypeVar

from services.common.errors import SettingsError

_log = logging.getLogger(__name__)
T = TypeVar("T")
_Mark = tuple[tuple[int, int, int, int] | None, ...]


class Watched(Generic[T]):
    """The value of some files. Looking costs a ``stat`` of each, so whoever needs the value asks for it each time."""

    def __init__(self, paths: Sequence[Path], read: Callable[..., T]) -> None:
        """``read`` gets the bytes of each file and raises ValueError, with a reason, where they can't be used.

        Raises:
            SettingsError: a file can't be read or used.
        """
        self._paths = paths
        self._read = read
        self._mark = self._look()
        self._value = self._load()

    def get(self) -> T:
        """The newest value that could be read; files that can't be used now leave the one before, and a line in the log."""
        mark = self._look()
        if mark != self._mark:
            self._mark = mark
            try:
                self._value = self._load()
                _log.info("files have changed and were read again", extra={"files": self._names()})
            except SettingsError as error:
                _log.error("files have changed and can't be used, what they were before stays in force: %s", error.message)
        return self._value

    def _load(self) -> T:
        try:
            return self._read(*(path.read_bytes() for path in self._paths))
        except OSError as error:
            raise SettingsError(f"{error.filename} can't be read: {error.strerror}.") from error
        except ValueError as error:
            raise SettingsError(f"{', '.join(self._names())}: {error}.") from error

    def _names(self) -> list[str]:
        return [str(path) for path in self._paths]

    def _look(self) -> _Mark:
        return tuple(_mark(path) for path in self._paths)


def _mark(path: Path) -> tuple[int, int, int, int] | None:
    """What differs once the file, or where a link to it leads, is another; None where there is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return stat.st_dev, stat.st_ino, stat.st_mtime_ns, stat.st_size
