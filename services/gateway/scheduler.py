"""Which span goes to which worker. Pure: decides from what is waiting, what is running, and how the workers are."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from services.gateway.keys import Ref


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """A span that waits for a worker, or has one."""

    job: Ref
    """Whose span; owners share workers evenly."""

    span: int
    """Index in the job's plan."""

    model: str
    """Must be loaded."""

    model_hash: str
    """Of its weights."""

    fingerprint: str
    """Workers with another one give other bytes."""

    pool: str = ""
    """Empty: any."""

    preview: bool = False
    """Goes first."""

    order: tuple[float, str] = (0.0, "")
    """The job's age."""

    megapixels: float = 0.0
    """Output of the whole span."""

    frame_pixels: int = 0
    """Of an output frame."""

    avoid: frozenset[str] = frozenset()
    """Workers that failed it; taken again only where there are no others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A worker as it was when last asked."""

    address: str
    """Where it is."""

    pool: str
    """Its pool."""

    fingerprint: str
    """Decides which plans it can restore."""

    models: tuple[tuple[str, str], ...]
    """Names and hashes of what it has loaded."""

    ready: bool
    """Takes spans."""

    slots: int = 1
    """Batch spans at a time, and as many previews."""

    foreign: int = 0
    """Slots that somebody else holds."""

    max_pixels: int = 0
    """Of a frame that fits its memory; 0: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A span and its worker."""

    work: Work
    """The span."""

    address: str
    """The worker."""


@dataclass(slots=True)
class _Load:
    batch: Counter[str] = field(default_factory=Counter)
    previews: Counter[str] = field(default_factory=Counter)
    owners: Counter[str] = field(default_factory=Counter)
    jobs: Counter[Ref] = field(default_factory=Counter)

    def add(self, assignment: Assignment) -> None:
        work = assignment.work
        (self.previews if work.preview else self.batch)[assignment.address] += 1
        self.owners[work.job.owner] += 1
        self.jobs[work.job] += 1


def can_restore(work: Work, worker: Candidate) -> bool:
    """Whether this worker, free or not, could restore the span."""
    return (
        worker.ready
        and work.pool in ("", worker.pool)
        and work.fingerprint == worker.fingerprint
        and (work.model, work.model_hash) in worker.models
        and (not worker.max_pixels or work.frame_pixels <= worker.max_pixels)
    )


def assign(waiting: Sequence[Work], running: Iterable[Assignment], workers: Sequence[Candidate]) -> list[Assignment]:
    """Who may start now: previews first, then owners and jobs with the fewest spans running, then age.

    A worker takes as many batch spans as it has slots and as many previews besides; the least loaded one is chosen.
    """
    load, found, left = _Load(), list[Assignment](), list(waiting)
    for assignment in running:
        load.add(assignment)
    while left:
        left.sort(key=lambda work: _turn(work, load))
        chosen = next(((work, worker) for work in left if (worker := _worker_for(work, load, workers))), None)
        if chosen is None:
            break
        assignment = Assignment(work=chosen[0], address=chosen[1].address)
        found.append(assignment)
        load.add(assignment)
        left.remove(chosen[0])
    return found


def avoiding(work: Work, address: str) -> Work:
    """The same span, to be sent elsewhere if possible."""
    return replace(work, avoid=work.avoid | {address})


def _turn(work: Work, load: _Load) -> tuple[bool, int, int, tuple[float, str], int]:
    return not work.preview, load.owners[work.job.owner], load.jobs[work.job], work.order, work.span


def _worker_for(work: Work, load: _Load, workers: Sequence[Candidate]) -> Candidate | None:
    able = [w for w in workers if can_restore(work, w)]
    others = [w for w in able if w.address not in work.avoid] or able
    free = [w for w in others if _has_room(work, w, load)]
    return min(free, key=lambda w: (load.batch[w.address] + load.previews[w.address] + w.foreign, w.address), default=None)


def _has_room(work: Work, worker: Candidate, load: _Load) -> bool:
    if work.preview:
        return load.previews[worker.address] < worker.slots
    # A waiting preview is not held up by a batch span, but a batch span would only queue behind what somebody else runs.
    return load.batch[worker.address] + worker.foreign < worker.slots
