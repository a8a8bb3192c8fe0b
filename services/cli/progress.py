"""Progress bars on a terminal; nothing where stderr is none."""

import sys
import types
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn

from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.words import STAGES, STATES

_WAITS = ("waiting", "store", "fetch", "cuts")
"""Stages that are told instead of the state: nothing is restored in them."""


class Bar:
    """One bar whose meaning changes as the work goes on."""

    def __init__(self) -> None:
        columns = (SpinnerColumn(), TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[detail]}"))
        self._progress = Progress(*columns, console=Console(stderr=True), transient=True, disable=not sys.stderr.isatty())
        self._task = self._progress.add_task("Starting", total=None, detail="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self._progress.stop()

    def say(self, what: str) -> None:
        """Something is being done whose end is not known."""
        self._update(what, 0, 0, "")

    def uploading(self, done_bytes: int, size_bytes: int) -> None:
        """Bytes on their way to the gateway."""
        self._update("Uploading", done_bytes, size_bytes, _megabytes(done_bytes, size_bytes))

    def downloading(self, done_bytes: int, size_bytes: int) -> None:
        """Bytes on their way back."""
        self._update("Downloading", done_bytes, size_bytes, _megabytes(done_bytes, size_bytes))

    def job(self, job: pb.Job) -> None:
        """What a job does now."""
        progress = job.progress
        what = STAGES[progress.stage] if progress.stage in _WAITS else state_words(job.state)
        if progress.stage_fraction and not progress.frames_total:
            self._update(what, round(100 * progress.stage_fraction), 100, progress_words(progress))
        else:
            self._update(what, progress.frames_done, progress.frames_total, progress_words(progress))

    def files(self, done: int, total: int) -> None:
        """Files of a folder."""
        self._update("Restoring", done, total, f"{done}/{total} files")

    def _update(self, what: str, done: int, total: int, detail: str) -> None:
        self._progress.update(self._task, description=what, completed=done, total=total or None, detail=detail)


def state_words(state: pb.JobState) -> str:
    """A job's state for people."""
    return STATES.get(state, "Unknown")


def progress_words(progress: pb.Progress) -> str:
    """For example "12/25 frames, 0.9 a second, 0:14 left"."""
    if not progress.frames_total:
        return f"{100 * progress.stage_fraction:.0f} %" if progress.stage_fraction else ""
    parts = [f"{progress.frames_done}/{progress.frames_total} frames"]
    if progress.frames_per_second:
        parts.append(f"{progress.frames_per_second:.2g} a second")
    if progress.HasField("time_left"):
        parts.append(f"{clock(progress.time_left.seconds)} left")
    return ", ".join(parts)


def clock(seconds: int) -> str:
    """Seconds as minutes and hours: 0:14, 1:02:03."""
    minutes, rest = divmod(seconds, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _megabytes(done_bytes: int, size_bytes: int) -> str:
    return f"{done_bytes / 1e6:.1f}/{size_bytes / 1e6:.1f} MB"
