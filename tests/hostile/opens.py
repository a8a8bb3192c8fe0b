"""Notices when a file is opened by anybody: the kernel's inotify."""

import ctypes
import os
from pathlib import Path

_IN_OPEN, _NONBLOCK = 0x20, 0o4000


class Opens:
    """Counts how often files in a directory are opened from now on."""

    def __init__(self, directory: Path) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._end = self._libc.inotify_init1(_NONBLOCK)
        if self._end < 0 or self._libc.inotify_add_watch(self._end, os.fsencode(directory), _IN_OPEN) < 0:
            raise OSError(ctypes.get_errno(), "inotify can't be used")

    def seen(self) -> bool:
        """Whether one was opened since the last look."""
        try:
            return bool(os.read(self._end, 1 << 16))
        except BlockingIOError:
            return False
