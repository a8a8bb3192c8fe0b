"""Spans that wait for workers: asks the scheduler whenever something changes, and says when waiting makes no sense."""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Collection
from dataclasses import dataclass, replace

from services.common.encoders import EVERYWHERE, named_encoder, title_of
from services.common.errors import FingerprintChanged, WorkerUnavailable
from services.common.fleet import has_encoder
from services.gateway.courtesy import Courtesy
from services.gateway.planning import Offer
from services.gateway.ports import Workers, WorkerView
from services.gateway.scheduler import Assignment, Candidate, Work, assign, can_restore, kind_of
from services.gateway.shares import Shares

_LOOK_S = 0.5
_READY = frozenset({"ready", "busy"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Patience:
    """How long to wait for workers that are not there."""

    worker_wait_s: float
    """For any that could restore a span."""

    fingerprint_wait_s: float
    """For one of the plan's fingerprint, while others serve the model."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Asking:
    """A job that waits for any worker that could restore it, to be planned for it."""

    model: str
    """Must be served."""

    pool: str = ""
    """Empty: any."""

    encoder: str = ""
    """As people name it; empty: none in particular."""

    megapixels: float = 0.0
    """Output that is expected of it."""


@dataclass(slots=True, eq=False)
class _Ticket:
    work: Work
    granted: asyncio.Future[str]


class Dispatcher:
    """Gives workers to spans."""

    def __init__(self, workers: Workers, patience: Patience, *, poll_s: float = 1.0) -> None:
        """``poll_s``: how often gateways look at workers."""
        self._workers = workers
        self._patience = patience
        self._shares = Shares()
        self._courtesy = Courtesy(poll_s)
        self._salt = random.getrandbits(32)
        self.asking: list[Asking] = []
        """Jobs that wait to be planned."""
        self._waiting: list[_Ticket] = []
        self._running: dict[_Ticket, Assignment] = {}
        self._able: dict[tuple[str, ...], tuple[bool, bool]] = {}
        self._assigning: asyncio.Handle | None = None
        workers.on_change(self._note_change)

    @contextlib.asynccontextmanager
    async def worker_for(self, work: Work, on_wait: Callable[[], None]) -> AsyncIterator[str]:
        """Wait for a worker, and hold it inside the block; ``on_wait`` is called while none could take the span.

        Raises:
            WorkerUnavailable: none came.
            FingerprintChanged: only workers of another fingerprint are there.
        """
        ticket = _Ticket(replace(work, since=time.monotonic()), asyncio.get_running_loop().create_future())
        self._waiting.append(ticket)
        self._assign_soon()
        try:
            yield await self._granted(ticket, on_wait)
        finally:
            if ticket in self._waiting:
                self._waiting.remove(ticket)
            self._release(ticket)

    def charge(self, work: Work, megapixels: float) -> None:
        """Count what an owner got."""
        self._shares.charge(work.job.owner, megapixels, time.monotonic())

    def note_refusal(self) -> None:
        """A worker that looked free had a span of somebody else."""
        self._courtesy.see_others(time.monotonic())

    async def offer(self, asking: Asking, on_wait: Callable[[], None]) -> Offer:
        """Wait for workers that serve a model and have an encoder, and say what they offer. Raises WorkerUnavailable."""
        model, pool, named = asking.model, asking.pool, named_encoder(asking.encoder)
        until = time.monotonic() + self._patience.worker_wait_s
        self.asking.append(asking)
        try:
            while (found := best_offer(self._workers.views(), model, pool, encoders=named.names)) is None:
                if time.monotonic() > until:
                    raise _nobody(model, pool, named.shallow, self._patience.worker_wait_s)
                on_wait()
                await asyncio.sleep(_LOOK_S)
        finally:
            self.asking.remove(asking)
        return found

    @property
    def running(self) -> int:
        """Spans that have a worker."""
        return len(self._running)

    def waiting(self) -> list[Work]:
        """Spans that have no worker yet."""
        return [ticket.work for ticket in self._waiting]

    async def _granted(self, ticket: _Ticket, on_wait: Callable[[], None]) -> str:
        seen_worker = seen_fingerprint = time.monotonic()
        while True:
            await asyncio.wait({ticket.granted}, timeout=_LOOK_S)
            if ticket.granted.done():
                return ticket.granted.result()
            now = time.monotonic()
            fitting, others = self._who_is_able(ticket.work)
            if fitting:
                seen_worker = seen_fingerprint = now
                continue
            on_wait()
            if not others:
                seen_fingerprint = now
            self._check_patience(ticket.work, now - seen_worker, now - seen_fingerprint)

    def _check_patience(self, work: Work, no_worker_s: float, other_fingerprint_s: float) -> None:
        if other_fingerprint_s > self._patience.fingerprint_wait_s:
            raise FingerprintChanged(
                f"The workers that began this job are gone, and those that serve {work.model} now would give other pixels; "
                "retry the job to restore it from its beginning."
            )
        if no_worker_s > self._patience.worker_wait_s:
            raise _nobody(work.model, work.pool, work.encoder, self._patience.worker_wait_s)

    def _who_is_able(self, work: Work) -> tuple[bool, bool]:
        """Whether workers could restore it, and whether others serve its model in its pool."""
        key = kind_of(work)
        if key not in self._able:
            fitting = any(can_restore(work, candidate) for candidate in map(candidate_of, self._workers.views()))
            others = best_offer(self._workers.views(), work.model, work.pool, encoders=(work.encoder,))
            self._able[key] = fitting, others is not None
        return self._able[key]

    def _note_change(self) -> None:
        self._able.clear()
        self._assign_soon()

    def _assign_soon(self) -> None:
        """Once for all that happens at the same time: a long film brings a thousand spans."""
        if self._assigning is None:
            self._assigning = asyncio.get_running_loop().call_soon(self._assign)

    def _release(self, ticket: _Ticket) -> None:
        assignment = self._running.pop(ticket, None)
        if assignment is not None:
            pause_s = self._courtesy.release(assignment.address, time.monotonic(), random.random())  # noqa: S311 - no secret
            if pause_s:
                asyncio.get_running_loop().call_later(pause_s, self._assign_soon)
        self._assign_soon()

    def _assign(self) -> None:
        self._assigning, now = None, time.monotonic()
        found = assign(
            self.waiting(), self._running.values(), self._candidates(now), recent=self._shares.recent(now), now=now,
            salt=self._salt,
        )  # fmt: skip
        by_work = {ticket.work: ticket for ticket in self._waiting} if found else {}
        for assignment in found:
            ticket = by_work[assignment.work]
            self._waiting.remove(ticket)
            self._running[ticket] = assignment
            if not ticket.granted.done():
                ticket.granted.set_result(assignment.address)

    def _candidates(self, now: float) -> list[Candidate]:
        running = self._running.values()
        batch = Counter(a.address for a in running if not a.work.preview)
        previews = Counter(a.address for a in running if a.work.preview)
        found = [candidate_of(view, batch[view.address]) for view in self._workers.views()]
        # A preview of ours may have the slot.
        for candidate in (c for c in found if c.foreign > previews[c.address]):
            self._courtesy.see_others(now, candidate.address)
        left_alone = self._courtesy.left_alone(now)
        return [candidate for candidate in found if candidate.address not in left_alone]


def candidate_of(view: WorkerView, held: int = 0) -> Candidate:
    """A worker as the scheduler sees it; ``held``: batch spans that it runs for us."""
    status = view.status
    if status is None:
        return Candidate(address=view.address, pool=view.pool, fingerprint="", models=(), ready=False)
    return Candidate(
        address=view.address,
        pool=view.pool,
        fingerprint=status.fingerprint,
        models=status.models,
        ready=view.state in _READY,
        encoders=status.encoders,
        slots=max(1, status.slots),
        foreign=max(0, status.slots - status.free_slots - held),
        megapixels_per_second=status.megapixels_per_second,
    )


def best_offer(
    views: list[WorkerView], model: str, pool: str, *, encoders: Collection[str] = EVERYWHERE, absent: bool = False
) -> Offer | None:
    """What most workers of the model and pool agree on; None where there are none.

    ``encoders``: they have one of these. ``absent``: those that are not ready count, too.
    """
    groups: dict[tuple[str, str], list[WorkerView]] = {}
    for view in views:
        if view.status is None or pool not in ("", view.pool) or not (absent or view.state in _READY):
            continue
        if not has_encoder(view.status.encoders, encoders):
            continue
        for served in view.status.models:
            if served.name == model:
                groups.setdefault((view.status.fingerprint, served.hash), []).append(view)
    if not groups:
        return None
    (fingerprint, model_hash), members = max(groups.items(), key=lambda group: (len(group[1]), group[0]))
    statuses = [view.status for view in members if view.status is not None]
    offered = [m for status in statuses for m in status.models if (m.name, m.hash) == (model, model_hash)]
    rooms = [m.max_output_pixels for m in offered]
    speeds = [status.megapixels_per_second for status in statuses if status.megapixels_per_second > 0]
    return Offer(
        # A span goes to a worker where it fits, so the roomiest counts; one that doesn't say might be it.
        model=replace(offered[0], max_output_pixels=max(rooms) if all(rooms) else 0),
        pool=pool,
        fingerprint=fingerprint,
        workers=len(members),
        megapixels_per_second=sum(speeds) / len(speeds) if speeds else 0.0,
        memory_bytes=max(status.memory_bytes for status in statuses),
        encoders=tuple(sorted({name for status in statuses for name in status.encoders})),
    )


def _nobody(model: str, pool: str, encoder: str, waited_s: float) -> WorkerUnavailable:
    where = (f" in the pool {pool}" if pool else "") + ("" if encoder in EVERYWHERE else f" and has {title_of(encoder)}")
    return WorkerUnavailable(f"No worker that serves {model}{where} came within {waited_s:g} s; start one, then retry the job.")
