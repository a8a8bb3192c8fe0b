"""Numbers and states in words for people. Pure."""

from google.protobuf import duration_pb2

from services.common import errors
from services.common.client import ENDED_STATES
from services.common.errors import ServiceError
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.words import STAGES

_UNREACHABLE = "The restoration service can't be reached right now. Nothing is lost; this page keeps trying."
_SIZE_UNITS = ("bytes", "kB", "MB", "GB", "TB")


def seconds_of(duration: duration_pb2.Duration) -> float:
    """A protobuf duration in seconds."""
    return float(duration.seconds) + float(duration.nanos) / 1e9


def time_words(seconds: float) -> str:
    """A length of time, as exact as a person wants it: "0.04 s", "2.0 s", "45 s", "3 min 20 s", "1 h 5 min"."""
    if 0 < seconds < 0.095:
        return f"{seconds:.2f} s"
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s" if whole % 60 else f"{whole // 60} min"
    minutes = round(seconds / 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes % 60 else f"{minutes // 60} h"


def about(seconds: float) -> str:
    """A predicted length of time: "a moment", "about 28 s", "about 4 min", "about 1 h 5 min"."""
    if seconds < 1:
        return "a moment"
    if seconds < 90:
        return f"about {round(seconds)} s"
    if seconds < 3600:
        return f"about {round(seconds / 60)} min"
    return f"about {time_words(round(seconds / 60) * 60)}"


def size_words(size_bytes: int) -> str:
    """A size: "0 bytes", "512 bytes", "1.0 MB", "20 GB"; 1 kB is 1,000 bytes."""
    value, unit = float(size_bytes), 0
    while value >= 999.5 and unit < len(_SIZE_UNITS) - 1:
        value, unit = value / 1000, unit + 1
    return f"{value:.1f} {_SIZE_UNITS[unit]}" if unit and value < 9.95 else f"{value:.0f} {_SIZE_UNITS[unit]}"


def count(number: int, noun: str) -> str:
    """A number with its noun: "1 frame", "49 frames"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def progress_words(job: pb.Job) -> str:
    """One sentence that says how far a job is: "12 of 49 frames, 1.3 frames/s, about 28 s left"."""
    progress = job.progress
    if job.state == pb.JOB_STATE_SUCCEEDED:
        return f"{count(job.result.frames, 'frame')} restored in {time_words(seconds_of(job.result.elapsed))}"
    if job.state in ENDED_STATES:
        done = f"{progress.frames_done:,} of {count(progress.frames_total, 'frame')} were restored"
        return done if progress.frames_total else "No frame was restored"
    if not progress.frames_total:
        done = f", {100 * progress.stage_fraction:.0f} %" if progress.stage_fraction else ""
        return STAGES.get(progress.stage, "Getting ready") + done
    parts = [f"{progress.frames_done:,} of {count(progress.frames_total, 'frame')}"]
    if progress.frames_per_second > 0:
        parts.append(f"{_rate(progress.frames_per_second)} frames/s")
    if progress.HasField("time_left"):
        parts.append(f"{about(seconds_of(progress.time_left))} left")
    return ", ".join(parts)


def percent(job: pb.Job) -> int:
    """How much of the frames is restored, 0 to 100; 100 only once the job has succeeded."""
    if job.state == pb.JOB_STATE_SUCCEEDED:
        return 100
    total = job.progress.frames_total
    return min(99, int(100 * job.progress.frames_done / total)) if total else 0


def error_words(error: ServiceError) -> str:
    """An error as a sentence for whoever looks at the page."""
    if type(error) in (errors.Unavailable, errors.DeadlinePassed):
        return _UNREACHABLE
    if isinstance(error, errors.TokenMissing):
        return "You are signed out. Load the page again to sign in."
    return error.message


def _rate(frames_per_second: float) -> str:
    return f"{frames_per_second:.0f}" if frames_per_second >= 10 else f"{frames_per_second:.1f}"
