"""A job and its states. Pure: what may follow what."""

import enum
import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from services.common.errors import ServiceError, WrongState
from services.gateway.job_request import JobRequest
from services.gateway.keys import LOCAL, Ref

_MAX_NOTES = 50


class State(enum.StrEnum):
    """Where a job is."""

    PENDING = "PENDING"
    PLANNING = "PLANNING"
    RESTORING = "RESTORING"
    JOINING = "JOINING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def ended(self) -> bool:
        """Whether a job stays here by itself."""
        return self in _ENDED


_ENDED = frozenset({State.SUCCEEDED, State.FAILED, State.CANCELLED})
_STOPPED = frozenset({State.FAILED, State.CANCELLED})
# A job that is taken up again, or planned anew, goes back.
_FOLLOWS: dict[State, frozenset[State]] = {
    State.PENDING: frozenset({State.PLANNING, State.RESTORING}) | _STOPPED,
    State.PLANNING: frozenset({State.RESTORING}) | _STOPPED,
    State.RESTORING: frozenset({State.PLANNING, State.JOINING}) | _STOPPED,
    State.JOINING: frozenset({State.RESTORING, State.SUCCEEDED}) | _STOPPED,
    State.SUCCEEDED: frozenset(),
    State.FAILED: frozenset({State.PENDING}),
    State.CANCELLED: frozenset({State.PENDING}),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanSummary:
    """What people want to know of a plan."""

    model: str
    """Its name."""

    pool: str
    """Empty: any."""

    fingerprint: str
    """Of the workers that restore it."""

    source_width: int
    """Pixels, as stored."""

    source_height: int
    """Pixels, as stored."""

    width: int
    """Of the result, as stored."""

    height: int
    """Of the result, as stored."""

    frames: int
    """Of the result."""

    first_frame: int
    """Index in the source."""

    spans: int
    """Units of work."""

    segments: int
    """Parts of the result."""

    duration_s: float
    """Of the result."""

    predicted_s: float | None
    """Time that it takes by the workers' measured speed; None: not measured."""

    container: str
    """One of FORMATS."""

    warnings: tuple[str, ...] = ()
    """What the result will not keep as it is."""

    predicted_memory_bytes: int = 0
    """Of a worker's device; 0: not known."""

    predicted_wait_s: float | None = None
    """Time that other work takes before; None: not known."""

    @property
    def until_done_s(self) -> float | None:
        """Both together."""
        return None if self.predicted_s is None else self.predicted_s + (self.predicted_wait_s or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """Why a job failed."""

    reason: str
    """Name of the error's class."""

    message: str
    """A sentence for whoever can act on it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The joined file."""

    filename: str
    """For people."""

    media_type: str
    """For browsers."""

    size_bytes: int
    """Of the file."""

    sha256: str
    """Of the file."""

    width: int
    """Pixels, as stored."""

    height: int
    """Pixels, as stored."""

    frames: int
    """Counted in the file."""

    duration_s: float
    """From the first frame to the end of the last."""

    elapsed_s: float
    """From creation (or retry) to the end."""

    stage_seconds: Mapping[str, float] = field(default_factory=dict)
    """Work by stage, of the run that ended it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """A job as it is now."""

    job_id: str
    """Unique for its owner."""

    request: JobRequest
    """As it came."""

    model: str
    """As asked for, or the default when it was created."""

    filename: str
    """Of the source."""

    source_sha256: str
    """Of the source; empty until it was fetched."""

    created_at: float
    """Seconds since 1970."""

    subject: str = ""
    """Who created it; empty without authentication."""

    owner: str = LOCAL
    """Whose it is."""

    request_id: str = ""
    """Of the request that created it; logs carry it."""

    traceparent: str = ""
    """Trace of that request, by W3C; whoever drives the job goes on in it."""

    state: State = State.PENDING
    """Where it is."""

    revision: int = 0
    """Grows with each write."""

    fence: int = 0
    """Token of the lease under which it was last written."""

    asked_at: float | None = None
    """When it was created or last retried; None: created_at."""

    started_at: float | None = None
    """When its first span could be sent."""

    ended_at: float | None = None
    """When it ended."""

    plan: PlanSummary | None = None
    """Once planned."""

    failure: Failure | None = None
    """When FAILED."""

    result: Result | None = None
    """When SUCCEEDED."""

    notes: tuple[str, ...] = ()
    """What had to be done to go on."""

    replanned: bool = False
    """Planned anew because its workers' fingerprint is gone; that happens once."""

    span_losses: tuple[tuple[int, str], ...] = ()
    """Spans that a worker was lost on since they went on last, each with the worker."""

    deleting: bool = False
    """Its objects are being removed; nothing else can happen to it any more."""

    newer: bool = False
    """A later release wrote things into it that this one doesn't know: it is shown, and left alone. Not stored."""

    @property
    def ref(self) -> Ref:
        """Names it."""
        return Ref(self.owner, self.job_id)

    @property
    def upload(self) -> Ref:
        """Its source; one that is fetched becomes an upload too."""
        return Ref(self.owner, self.request.upload_id or f"fetched-{hashlib.sha256(self.job_id.encode()).hexdigest()[:32]}")

    @property
    def order(self) -> tuple[float, str]:
        """Sorts jobs by age."""
        return self.created_at, self.job_id


Change = Callable[[Job], Job]
"""A step that a job takes; raises WrongState where it can't."""


def advance(job: Job, state: State, now: float) -> Job:
    """The job in another state.

    Raises:
        WrongState: that state doesn't follow.
    """
    if state == job.state and not state.ended:
        return job
    if state not in _FOLLOWS[job.state]:
        raise WrongState(f"The job is {job.state}; {_advice(job.state)}")
    started_at = now if state is State.RESTORING and job.started_at is None else job.started_at
    return replace(job, state=state, started_at=started_at, ended_at=now if state.ended else None)


def fetched(job: Job, sha256: str) -> Job:
    """The job, with its source in the store.

    Raises:
        WrongState: it is another one than when the job was planned.
    """
    if job.source_sha256 not in ("", sha256):
        raise WrongState("The source is another file than when the job began; create another job.")
    return replace(job, source_sha256=sha256)


def planned(job: Job, plan: PlanSummary, now: float) -> Job:
    """The job with its plan, ready to restore."""
    return replace(advance(job, State.RESTORING, now), plan=plan)


def replanning(job: Job, note: str, now: float) -> Job:
    """The job without a plan, once."""
    return replace(noted(advance(job, State.PLANNING, now), note), plan=None, replanned=True, span_losses=())


def succeeded(job: Job, result: Result, now: float) -> Job:
    """The job with its result."""
    return replace(advance(job, State.SUCCEEDED, now), result=result)


def failed(job: Job, error: ServiceError, now: float) -> Job:
    """The job with the reason why it can't go on."""
    failure = Failure(reason=type(error).__name__, message=error.message)
    return replace(advance(job, State.FAILED, now), failure=failure)


def cancelled(job: Job, now: float) -> Job:
    """The job, ended by somebody; one that is cancelled already stays so."""
    return job if job.state is State.CANCELLED else advance(job, State.CANCELLED, now)


def retried(job: Job, now: float) -> Job:
    """A stopped job from its beginning; what is stored will be found again."""
    # Its spans may need another plan than the one that couldn't be restored.
    replan = job.failure is not None and job.failure.reason == "FingerprintChanged"
    again = replace(advance(job, State.PENDING, now), asked_at=now, started_at=None, failure=None, notes=(), replanned=False)
    # Whoever still lets go of the run that was stopped must not take this one for it.
    again = claimed(replace(again, span_losses=()), 0)
    if job.request.is_remote and job.plan is None:
        # What was fetched was of no use; it is fetched again, and may be something else by then.
        again = replace(again, source_sha256="")
    return replace(again, plan=None) if replan else again


def deleting(job: Job) -> Job:
    """The job, ended and about to be removed.

    Raises:
        WrongState: it has not ended.
    """
    if not job.state.ended:
        raise WrongState(f"The job is {job.state}; cancel it, or wait until it has ended, then delete it.")
    return replace(job, deleting=True)


def claimed(job: Job, token: int) -> Job:
    """The job under another lease: earlier holders can't write any more."""
    # Where leases were lost with their directory, their tokens begin anew.
    return replace(job, fence=max(token, job.fence + 1))


def noted(job: Job, note: str) -> Job:
    """The job with one note more, if it is new and there are not too many."""
    return job if note in job.notes or len(job.notes) >= _MAX_NOTES else replace(job, notes=(*job.notes, note))


def span_lost(job: Job, span: int, worker: str) -> Job:
    """The job, with a worker that was lost in the middle of a span."""
    loss = (span, worker)
    return job if loss in job.span_losses else replace(job, span_losses=(*job.span_losses, loss))


def span_went_on(job: Job, span: int) -> Job:
    """The job, with a span that got further than where it lost workers."""
    return replace(job, span_losses=tuple(loss for loss in job.span_losses if loss[0] != span))


def lost_on(job: Job, span: int) -> tuple[str, ...]:
    """Workers that were lost on a span since it went on last."""
    return tuple(worker for index, worker in job.span_losses if index == span)


def _advice(state: State) -> str:
    if state is State.SUCCEEDED:
        return "it has its result, create another job to restore it again."
    if state.ended:
        return "retry it, or delete it."
    return "cancel it, or wait until it has ended."
