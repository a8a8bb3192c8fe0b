"""How far a job is. Pure; the clock is an argument."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace

from services.gateway.jobs import Job, State

WAITING, STORE, FETCH, PROBE, PLAN, CUTS, JOIN = "waiting", "store", "fetch", "probe", "plan", "cuts", "join"
_LAST_STAGE = "encode"
_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """What people see while a job runs."""

    stage: str = ""
    """What is being done now."""

    stage_fraction: float = 0.0
    """How much of a stage that comes before restoring is done, 0 to 1; 0: not known."""

    frames_done: int = 0
    """Restored and encoded."""

    frames_total: int = 0
    """0: not known yet."""

    frames_per_second: float = 0.0
    """Since this run of the job began; 0: nothing yet."""

    time_left_s: float | None = None
    """None: not known."""

    segments_done: int = 0
    """Stored."""

    segments_total: int = 0
    """In the plan."""

    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """Work so far by stage."""


def shown_progress(job: Job, progress: Progress) -> Progress:
    """What people see of a job in its state, now."""
    if job.state is State.SUCCEEDED and job.plan is not None:
        frames, segments = job.plan.frames, job.plan.segments
        spent = job.result.stage_seconds if job.result is not None else {}
        return Progress(
            frames_done=frames, frames_total=frames, segments_done=segments, segments_total=segments, stage_seconds=spent
        )
    known = replace(
        progress,
        frames_total=progress.frames_total or (job.plan.frames if job.plan else 0),
        segments_total=progress.segments_total or (job.plan.segments if job.plan else 0),
    )
    return replace(known, stage="", stage_fraction=0.0, time_left_s=None) if job.state.ended else known


@dataclass(slots=True)
class ProgressMeter:
    """Adds up what spans report."""

    frames_total: int
    """Of the job."""

    segments_total: int
    """Of the plan."""

    predicted_s: float | None = None
    """Until frames were restored, the plan's word."""

    stage: str = "decode"
    """The last one reported."""

    stage_seconds: dict[str, float] = field(default_factory=dict)
    """By stage."""

    _stored: dict[int, int] = field(default_factory=dict)
    _segments: dict[int, int] = field(default_factory=dict)
    _encoded: dict[int, int] = field(default_factory=dict)
    _active: int = 0
    _since: float | None = None
    _frames_before: int = 0

    def span_found(self, span: int, frames: int, segments: int) -> None:
        """What the store has of a span that is about to be sent, or is done."""
        self._stored[span], self._segments[span], self._encoded[span] = frames, segments, 0

    def span_started(self, now: float) -> None:
        """A worker begins; speed is counted from the first one on."""
        self._active += 1
        if self._since is None:
            self._since, self._frames_before = now, self.frames_done

    def span_stopped(self) -> None:
        """A worker has ended, well or not."""
        self._active -= 1

    def segment_stored(self, span: int, frames: int) -> None:
        """One more."""
        self._stored[span] = self._stored.get(span, 0) + frames
        self._segments[span] = self._segments.get(span, 0) + 1

    def stage_done(self, span: int, stage: str, frames: int, seconds: float) -> None:
        """What a worker reports."""
        self.stage = stage
        self.stage_seconds[stage] = self.stage_seconds.get(stage, 0.0) + seconds
        if stage == _LAST_STAGE:
            self._encoded[span] = frames

    @property
    def frames_done(self) -> int:
        """Restored and encoded."""
        spans = self._stored.keys() | self._encoded.keys()
        return min(self.frames_total, sum(max(self._stored.get(s, 0), self._encoded.get(s, 0)) for s in spans))

    def progress(self, now: float, stage: str = "") -> Progress:
        """As people see it."""
        done = self.frames_done
        elapsed = now - self._since if self._since is not None else 0.0
        speed = (done - self._frames_before) / elapsed if elapsed > 0 else 0.0
        return Progress(
            stage=stage or (self.stage if self._active else WAITING),
            frames_done=done,
            frames_total=self.frames_total,
            frames_per_second=speed,
            time_left_s=(self.frames_total - done) / speed if speed > 0 else self.predicted_s,
            segments_done=sum(self._segments.values()),
            segments_total=self.segments_total,
            stage_seconds=dict(self.stage_seconds),
        )


def progress_to_json(progress: Progress, fence: int) -> bytes:
    """The stored form; ``fence`` is the job's when it was made."""
    return json.dumps({"schema_version": _SCHEMA_VERSION, "fence": fence, **asdict(progress)}).encode()


def progress_from_json(data: bytes, fence: int) -> Progress:
    """Read :func:`progress_to_json` back; that of another run, or of another release, tells nothing."""
    record = json.loads(data)
    if (record.pop("schema_version", None), record.pop("fence", None)) != (_SCHEMA_VERSION, fence):
        return Progress()
    return Progress(**{name: value for name, value in record.items() if name in Progress.__slots__})
