"""A fleet in simulated time: gateways that schedule as the real ones do, and workers that take time, refuse, die and come back.

Gateways know of each other only what workers say when they are asked, now and then, and the refusal of one that has no room.
"""

import heapq
import itertools
import random
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from services.common.errors import QueueFull, ServiceError, WorkerBroken
from services.gateway.courtesy import Courtesy
from services.gateway.keys import Ref
from services.gateway.scheduler import Assignment, Candidate, Work, assign, avoiding, can_restore
from services.gateway.shares import Shares
from services.gateway.tries import Tries
from tests.unit.gateway.examples import MODEL

POLL_S = 1.0


def simulated_work(owner: str, job_id: str, span: int = 0, **changes: object) -> Work:
    values = {
        "model": MODEL.name, "model_hash": MODEL.hash, "fingerprint": "f", "megapixels": 100.0, "width": 1000, "height": 1000,
        **changes,
    }  # fmt: skip
    return Work(job=Ref(owner, job_id), span=span, **values)


@dataclass(eq=False)
class SimulatedWorker:
    address: str
    speed: float = 10.0
    """Megapixels a second."""
    max_pixels: int = 0
    fingerprint: str = "f"
    pool: str = "p"
    up: bool = True
    batch: "Attempt | None" = None
    preview: "Attempt | None" = None

    def candidate(self, held: int = 0) -> Candidate:
        model = replace(MODEL, max_output_pixels=self.max_pixels)
        busy = int(self.batch is not None)
        return Candidate(
            address=self.address, pool=self.pool, fingerprint=self.fingerprint, models=(model,), ready=self.up,
            foreign=max(0, busy - held), megapixels_per_second=self.speed,
        )  # fmt: skip


@dataclass(eq=False)
class Attempt:
    gateway: "SimulatedGateway"
    assignment: Assignment
    ends_at: float
    over: bool = False


@dataclass(eq=False)
class SimulatedGateway:
    salt: int
    seen: dict[str, tuple[bool, bool]] = field(default_factory=dict)
    """Of each worker, as it said last: whether it is up, and whether a batch span is in it."""
    waiting: list[Work] = field(default_factory=list)
    running: list[Attempt] = field(default_factory=list)
    shares: Shares = field(default_factory=Shares)
    courtesy: Courtesy = field(default_factory=lambda: Courtesy(POLL_S))
    tries: dict[tuple[str, int], Tries] = field(default_factory=dict)


class Fleet:
    """Everything, and the clock."""

    def __init__(
        self, workers: list[SimulatedWorker], *, gateways: int = 1, seed: int = 0, poisonous: frozenset[str] = frozenset()
    ):
        self.now = 0.0
        self.dice = random.Random(seed)
        self.workers = {w.address: w for w in workers}
        self.gateways = [SimulatedGateway(salt=self.dice.getrandbits(32)) for _ in range(gateways)]
        self.poisonous = poisonous
        self.waits: dict[tuple[str, int], float] = {}
        """From the first moment in which a span waited to its last start."""
        self.done: Counter[tuple[str, int]] = Counter()
        self.failed: dict[str, str] = {}
        """Why jobs failed."""
        self.served: defaultdict[str, float] = defaultdict(float)
        self.killed: list[tuple[str, str]] = []
        """Jobs and the workers that they took along."""
        self.refused = 0
        self.coming = 0
        """Spans that rest before they are tried again, and submissions to come."""
        self.busy_s: defaultdict[str, float] = defaultdict(float)
        self._asked: dict[tuple[str, int], float] = {}
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        for gateway in self.gateways:
            for worker in workers:
                self._poll(gateway, worker)

    def at(self, when: float, event: Callable[[], None]) -> None:
        heapq.heappush(self._events, (when, next(self._numbers), event))

    def soon(self, when: float, event: Callable[[], object]) -> None:
        """The same, for what :meth:`finish` waits for."""
        self.coming += 1

        def happen() -> None:
            self.coming -= 1
            event()

        self.at(when, happen)

    def run(self, until: float, *, check: Callable[[], None] = lambda: None) -> None:
        while self._events and self._events[0][0] <= until:
            self.now, _, event = heapq.heappop(self._events)
            event()
            check()
        self.now = until

    def submit(self, works: list[Work], gateway: int = 0) -> None:
        for work in works:
            self._asked[work.job.id, work.span] = self.now
            self._wait(self.gateways[gateway], replace(work, order=(self.now, work.job.id)))
        self._schedule(self.gateways[gateway])

    def finish(self, limit: float, *, check: Callable[[], None] = lambda: None) -> None:
        """Until nothing is left, or the clock says ``limit``."""
        while self.now < limit and (self.left or self.coming):
            self.run(self.now + 10, check=check)

    @property
    def left(self) -> int:
        return sum(len(g.waiting) + len(g.running) for g in self.gateways)

    # ---- workers ----

    def kill(self, address: str, *, down_s: float = 30.0) -> None:
        worker = self.workers[address]
        attempts = [a for a in (worker.batch, worker.preview) if a is not None]
        worker.up, worker.batch, worker.preview = False, None, None
        for attempt in attempts:
            self._end(attempt, WorkerBroken(f"{address} was lost."))
        self.at(self.now + down_s, lambda: self.revive(address))

    def revive(self, address: str) -> None:
        self.workers[address].up = True

    def join(self, worker: SimulatedWorker) -> None:
        self.workers[worker.address] = worker
        for gateway in self.gateways:
            self._poll(gateway, worker)

    def _poll(self, gateway: SimulatedGateway, worker: SimulatedWorker) -> None:
        before = gateway.seen.get(worker.address)
        self._look(gateway, worker)
        if gateway.seen[worker.address] != before:
            self._schedule(gateway)
        self.at(self.now + POLL_S * self.dice.uniform(0.9, 1.1), lambda: self._poll(gateway, worker))

    def _look(self, gateway: SimulatedGateway, worker: SimulatedWorker) -> None:
        gateway.seen[worker.address] = (worker.up, worker.batch is not None)
        if worker.batch is not None and worker.batch.gateway is not gateway:
            gateway.courtesy.see_others(self.now)

    # ---- gateways ----

    def candidates(self, gateway: SimulatedGateway) -> list[Candidate]:
        found, left_alone = [], gateway.courtesy.left_alone(self.now)
        for address, (up, busy) in gateway.seen.items():
            if address in left_alone:
                continue
            held = sum(a.assignment.address == address and not a.assignment.work.preview for a in gateway.running)
            candidate = self.workers[address].candidate()
            found.append(replace(candidate, ready=up, foreign=max(0, int(busy) - held)))
        return found

    def _wait(self, gateway: SimulatedGateway, work: Work) -> None:
        if work.job.id not in self.failed:
            gateway.waiting.append(replace(work, since=self.now))

    def _schedule(self, gateway: SimulatedGateway) -> None:
        running = [a.assignment for a in gateway.running]
        found = assign(
            gateway.waiting, running, self.candidates(gateway), recent=gateway.shares.recent(self.now), now=self.now,
            salt=gateway.salt,
        )  # fmt: skip
        for assignment in found:
            gateway.waiting.remove(assignment.work)
            self._start(gateway, assignment)

    def _start(self, gateway: SimulatedGateway, assignment: Assignment) -> None:
        worker, work = self.workers[assignment.address], assignment.work
        assert can_restore(replace(work), worker.candidate()) or not worker.up
        attempt = Attempt(gateway, assignment, self.now + work.megapixels / worker.speed)
        gateway.running.append(attempt)
        taken = worker.preview if work.preview else worker.batch
        if not worker.up:
            self.at(self.now, lambda: self._end(attempt, WorkerBroken("no connection")))
        elif taken is not None:
            self.refused += 1
            self.at(self.now, lambda: self._end(attempt, QueueFull("full")))
        else:
            self._restore(worker, attempt)

    def _restore(self, worker: SimulatedWorker, attempt: Attempt) -> None:
        work = attempt.assignment.work
        self.waits[work.job.id, work.span] = self.now - self._asked[work.job.id, work.span]
        if work.preview:
            worker.preview = attempt
            if worker.batch is not None:
                # Between two slices the preview goes first.
                worker.batch.ends_at += attempt.ends_at - self.now
        else:
            worker.batch = attempt
        if work.job.id in self.poisonous:
            self.killed.append((work.job.id, worker.address))
            self.at(self.now + 1, lambda: None if attempt.over else self.kill(worker.address))
        self.at(attempt.ends_at, lambda: self._finish(worker, attempt))

    def _finish(self, worker: SimulatedWorker, attempt: Attempt) -> None:
        if attempt.over:
            return
        if attempt.ends_at > self.now:
            self.at(attempt.ends_at, lambda: self._finish(worker, attempt))
            return
        work = attempt.assignment.work
        if work.preview:
            worker.preview = None
        else:
            worker.batch = None
        self.busy_s[worker.address] += work.megapixels / worker.speed
        self.done[work.job.id, work.span] += 1
        self.served[work.job.owner] += work.megapixels
        attempt.gateway.shares.charge(work.job.owner, work.megapixels, self.now)
        self._end(attempt, None)

    def _end(self, attempt: Attempt, error: ServiceError | None) -> None:
        """What a gateway does when a conversation ends: asks the worker how it is, and tries the span again where it failed."""
        gateway, work, address = attempt.gateway, attempt.assignment.work, attempt.assignment.address
        attempt.over = True
        gateway.running.remove(attempt)
        pause_s = gateway.courtesy.release(address, self.now, self.dice.random())
        self._look(gateway, self.workers[address])
        if error is not None:
            self._try_again(gateway, work, address, error)
        self._schedule(gateway)
        if pause_s:
            self.at(self.now + pause_s, lambda: self._schedule(gateway))

    def _try_again(self, gateway: SimulatedGateway, work: Work, address: str, error: ServiceError) -> None:
        tries = gateway.tries.setdefault((work.job.id, work.span), Tries(limit=1000))
        try:
            pause_s = tries.next_pause(error, address, went_on=False, chance=self.dice.random())
        except ServiceError as end:
            self.failed[work.job.id] = end.message
            gateway.waiting = [w for w in gateway.waiting if w.job.id != work.job.id]
            return
        again = work if isinstance(error, QueueFull) else avoiding(work, address)
        self.soon(self.now + pause_s, lambda: (self._wait(gateway, again), self._schedule(gateway)))
