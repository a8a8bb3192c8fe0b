"""Progress for whoever looks: a line that changes on a terminal, log lines elsewhere."""

import logging
import time
from typing import TextIO

from services.inference.delivery.progress import OnProgress, Progress, size_text

_log = logging.getLogger(__name__)
_BAR_WIDTH = 24
_BAR_EVERY_S = 0.2
_LINE_EVERY_S = 10.0


def display_for(stream: TextIO) -> OnProgress:
    """What suits ``stream``, where this process writes its messages."""
    return Bar(stream) if stream.isatty() else Lines()


class _Paced:
    """Whether it is time to show something: at once for another file or stage, else every so often."""

    def __init__(self, every_s: float) -> None:
        self._every_s = every_s
        self._last: tuple[str, str, str] | None = None
        self._shown = 0.0

    def due(self, progress: Progress) -> bool:
        now, what = time.monotonic(), (progress.stage, progress.model, progress.file)
        if what == self._last and now - self._shown < self._every_s:
            return False
        self._last, self._shown = what, now
        return True


class Lines:
    """A log line for each file and stage, and every ten seconds within one."""

    def __init__(self) -> None:
        self._paced = _Paced(_LINE_EVERY_S)

    def __call__(self, progress: Progress) -> None:
        if self._paced.due(progress):
            _log.info(
                text_of(progress),
                extra={
                    "stage": progress.stage,
                    "model": progress.model,
                    "file": progress.file,
                    "done_bytes": progress.done_bytes,
                    "total_bytes": progress.total_bytes,
                },
            )


class Bar:
    """One line that is written over."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._paced = _Paced(_BAR_EVERY_S)

    def __call__(self, progress: Progress) -> None:
        if self._paced.due(progress):
            end = "\n" if progress.stage == "ready" else ""
            self._stream.write(f"\r\x1b[K{_bar(progress)}{text_of(progress)}{end}")
            self._stream.flush()


def text_of(progress: Progress) -> str:
    """One progress in words."""
    if progress.stage == "ready":
        return f"{progress.model} is ready"
    what = f"{progress.file} {_amount(progress)}".strip()
    if progress.stage == "waiting":
        return f"waiting for another process that downloads to this volume{f': {what}' if what else ''}"
    return f"{progress.stage} {what}"


def _amount(progress: Progress) -> str:
    if not progress.total_bytes:
        return size_text(progress.done_bytes) if progress.done_bytes else ""
    percent = 100 * progress.done_bytes // progress.total_bytes
    return f"{size_text(progress.done_bytes)} of {size_text(progress.total_bytes)} ({percent} %)"


def _bar(progress: Progress) -> str:
    if not progress.total_bytes:
        return ""
    full = min(_BAR_WIDTH, _BAR_WIDTH * progress.done_bytes // progress.total_bytes)
    return "[" + "#" * full + "." * (_BAR_WIDTH - full) + "] "
