"""Which span goes to which worker. Pure: decides from what is waiting, what is running, what owners got, and how workers are.

Previews come before batch spans. Within a class the owner that got least of late comes first, so owners share the fleet by work
done and not by how much they ask for; then the owner and the job with the fewest spans running, then age. A worker takes as many
batch spans as it has slots and as many previews besides. Of those that are free the least loaded one is taken; of equals the one
that can do least else, then the fastest.
"""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import NamedTuple

from services.common.fleet import WorkerModel, has_encoder
from services.common.pixels import VIDEO_ENCODER
from services.gateway.keys import Ref
from services.gateway.room import has_room

AVOID_S = 60.0
"""How long a span waits for another worker than those that failed it, while any of these is free."""

# Owners whose share differs by less than this part of the average count as equal, and age decides: so nobody waits for ever,
# even where new owners keep coming.
_SHARE_STEP = 0.25


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

    encoder: str = VIDEO_ENCODER
    """FFmpeg's name of the one that the worker must have."""

    preview: bool = False
    """Goes first."""

    order: tuple[float, str] = (0.0, "")
    """The job's age."""

    megapixels: float = 0.0
    """Output of the whole span."""

    width: int = 0
    """Of an output frame, in pixels."""

    height: int = 0
    """Of an output frame, in pixels."""

    avoid: frozenset[str] = frozenset()
    """Workers that failed it; taken again where there are no others, or all others are busy for :data:`AVOID_S`."""

    since: float = 0.0
    """When it began to wait, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A worker as it was when last asked."""

    address: str
    """Where it is."""

    pool: str
    """Its pool."""

    fingerprint: str
    """Decides which plans it can restore."""

    models: tuple[WorkerModel, ...]
    """What it has loaded."""

    ready: bool
    """Takes spans."""

    encoders: tuple[str, ...] = ()
    """That it has beside those that every worker has."""

    slots: int = 1
    """Batch spans at a time, and as many previews."""

    foreign: int = 0
    """Slots that somebody else holds."""

    megapixels_per_second: float = 0.0
    """Its speed; 0: not measured."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Assignment:
    """A span and its worker."""

    work: Work
    """The span."""

    address: str
    """The worker."""


class _Need(NamedTuple):
    """What decides which workers could take a span now: the same for most spans that wait."""

    model: str
    model_hash: str
    fingerprint: str
    pool: str
    encoder: str
    preview: bool
    width: int
    height: int
    avoid: frozenset[str]
    patient: bool


@dataclass(slots=True)
class _Load:
    """What runs where, and for whom."""

    batch: Counter[str] = field(default_factory=Counter)
    previews: Counter[str] = field(default_factory=Counter)
    owners: Counter[str] = field(default_factory=Counter)
    jobs: Counter[Ref] = field(default_factory=Counter)
    megapixels: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def add(self, assignment: Assignment) -> None:
        work = assignment.work
        (self.previews if work.preview else self.batch)[assignment.address] += 1
        self.owners[work.job.owner] += 1
        self.jobs[work.job] += 1
        self.megapixels[work.job.owner] += work.megapixels


@dataclass(frozen=True, slots=True)
class _Fleet:
    workers: Sequence[Candidate]
    load: _Load
    salt: int

    def slots(self) -> frozenset[bool]:
        """Of which classes somebody has a slot: False for batch spans, True for previews."""
        ready = [w for w in self.workers if w.ready]
        return frozenset(preview for preview in (False, True) if any(self._has_slot(w, preview=preview) for w in ready))

    def worker_for(self, need: _Need) -> Candidate | None:
        able = [w for w in self.workers if _meets(need, w)]
        others = [w for w in able if w.address not in need.avoid]
        found = self._best(need, others)
        # A busy worker is worth a wait, but not an endless one beside an idle one.
        return found if found or (others and need.patient) else self._best(need, able)

    def _best(self, need: _Need, able: Sequence[Candidate]) -> Candidate | None:
        return min((w for w in able if self._has_slot(w, preview=need.preview)), key=lambda w: self._rank(need, w), default=None)

    def _has_slot(self, worker: Candidate, *, preview: bool) -> bool:
        if preview:
            return self.load.previews[worker.address] < worker.slots
        # A waiting preview is not held up by a batch span, but a batch span would only queue behind what somebody else runs.
        return self.load.batch[worker.address] + worker.foreign < worker.slots

    def _rank(self, need: _Need, worker: Candidate) -> tuple[float, float, float, bytes]:
        busy = self.load.batch[worker.address] + self.load.previews[worker.address] + worker.foreign
        model = _find(need.model, need.model_hash, worker.models)
        room = model.max_output_pixels if model and model.max_output_pixels else float("inf")
        # Gateways that see the same workers must not all begin with the same one.
        by_chance = hashlib.blake2b(f"{self.salt} {worker.address}".encode(), digest_size=8).digest()
        return busy / worker.slots, room, -worker.megapixels_per_second, by_chance


def can_restore(work: Work, worker: Candidate) -> bool:
    """Whether this worker, free or not, could restore the span."""
    return _meets(_need(work, 0.0), worker)


def kind_of(work: Work) -> tuple[str, ...]:
    """Equal for spans that the same workers could restore."""
    return work.model, work.model_hash, work.fingerprint, work.pool, work.encoder, f"{work.width}x{work.height}"


def assign(
    waiting: Sequence[Work], running: Iterable[Assignment], workers: Sequence[Candidate], *,
    recent: Mapping[str, float] = MappingProxyType({}), now: float = 0.0, salt: int = 0,
) -> list[Assignment]:  # fmt: skip
    """Who may start now.

    Args:
        recent: megapixels that each owner got of late, those of running spans not counted.
        now: in seconds, by the clock of ``Work.since``.
        salt: decides between equal workers; another number for each gateway.
    """
    load, found = _Load(), list[Assignment]()
    for assignment in running:
        load.add(assignment)
    fleet = _Fleet(workers, load, salt)
    # Most of the time everybody is busy, and thousands may wait.
    slots = fleet.slots()
    queues = _queues([work for work in waiting if work.preview in slots], now)
    # Those who got something and went count for the average, or nobody would ever have less than one who only begins.
    owners = {job.owner for job, _ in queues} | load.owners.keys() | recent.keys()
    while queues:
        free = {need: worker for need in {need for _, need in queues} if (worker := fleet.worker_for(need))}
        heads = [(queue[-1], key) for key, queue in queues.items() if key[1] in free]
        if not heads:
            break
        got = {owner: recent.get(owner, 0.0) + load.megapixels[owner] for owner in owners}
        average = sum(got.values()) / len(got)
        work, key = min(heads, key=lambda head: _turn(head[0], load, got[head[0].job.owner] / average if average else 0.0))
        assignment = Assignment(work=work, address=free[key[1]].address)
        found.append(assignment)
        load.add(assignment)
        queues[key].pop()
        if not queues[key]:
            del queues[key]
    return found


def avoiding(work: Work, address: str) -> Work:
    """The same span, to be sent elsewhere if possible."""
    return replace(work, avoid=work.avoid | {address})


def _queues(waiting: Sequence[Work], now: float) -> dict[tuple[Ref, _Need], list[Work]]:
    """Spans of a job that any worker would take for one another, the first one last."""
    queues: defaultdict[tuple[Ref, _Need], list[Work]] = defaultdict(list)
    for work in sorted(waiting, key=lambda work: work.span, reverse=True):
        queues[work.job, _need(work, now)].append(work)
    return dict(queues)


def _turn(work: Work, load: _Load, share: float) -> tuple[bool, int, int, int, tuple[float, str], int]:
    owner_spans, job_spans = load.owners[work.job.owner], load.jobs[work.job]
    return not work.preview, round(share / _SHARE_STEP), owner_spans, job_spans, work.order, work.span


def _need(work: Work, now: float) -> _Need:
    return _Need(
        model=work.model, model_hash=work.model_hash, fingerprint=work.fingerprint, pool=work.pool,
        encoder=work.encoder, preview=work.preview, width=work.width, height=work.height, avoid=work.avoid,
        patient=bool(work.avoid) and now - work.since < AVOID_S,
    )  # fmt: skip


def _meets(need: _Need, worker: Candidate) -> bool:
    if not worker.ready or need.pool not in ("", worker.pool) or need.fingerprint != worker.fingerprint:
        return False
    if not has_encoder(worker.encoders, (need.encoder,)):
        return False
    model = _find(need.model, need.model_hash, worker.models)
    return model is not None and has_room(model, need.width, need.height)


def _find(name: str, model_hash: str, models: Iterable[WorkerModel]) -> WorkerModel | None:
    return next((m for m in models if (m.name, m.hash) == (name, model_hash)), None)
