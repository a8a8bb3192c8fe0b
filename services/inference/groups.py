"""Groups of ranks: started, commanded and watched together. When a rank is lost, its whole group is ended and starts afresh.

A group restores one span at a time, and at most one preview in the middle of it. Groups have nothing in common but the server:
what happens to one leaves the others alone.
"""

import asyncio
import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

from services.common.channel import Message
from services.common.errors import GpuOutOfMemory, ServiceError, SettingsError, WorkerBroken
from services.common.metrics import InferenceMetrics
from services.inference.layout import ParallelLayout, layout_of
from services.inference.machines import Events, Machines
from services.inference.messages import LEADER, LoadOrder, RankReady, RestoreOrder
from services.inference.orders import Order
from services.inference.ranks import Loss, Rank, RankLimits

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
# How long to wait for a better reason than the one heard of first, by how likely that is the echo of another rank's end.
_ECHO_S = {1: 1.0, 2: 10.0}


class Group:
    """Ranks that share a span, kept alive."""

    def __init__(
        self, orders: Sequence[LoadOrder], limits: RankLimits, metrics: InferenceMetrics, on_change: Callable[[], None],
        machines: Machines,
    ) -> None:  # fmt: skip
        """``orders`` are those of its ranks, the leader's first; ``machines`` are what they run on."""
        self.ranks = tuple(
            Rank(order, limits, metrics, on_ready=self._rise, hear=partial(self._hear, place))
            for place, order in enumerate(orders)
        )
        self.ready: RankReady | None = None
        """What the leader said when all ranks were ready; None while they aren't."""
        self.loss: Loss | None = None
        """How a rank was lost since the group was ready last."""
        self._load_orders = orders
        self._limits = limits
        self._on_change = on_change
        self._machines = machines
        self._orders: dict[int, Order] = {}
        self._numbers = itertools.count(1)
        self._missing: Loss | None = None
        self._leaving: Loss | None = None
        self._given_up: asyncio.Future[Loss] | None = None

    @property
    def available_bytes(self) -> int:
        """Memory that each of its ranks could hold on its device."""
        return min(rank.available_bytes for rank in self.ranks)

    @property
    def detail(self) -> str:
        """Which rank isn't ready, and why; empty when all are."""
        late = self._late()
        return f"rank {late.index}: {late.why}" if self.ready is None else ""

    async def keep_alive(self) -> None:
        """Start the processes, and again whenever one ends. Runs until it is cancelled."""
        pause_s = _FIRST_PAUSE_S
        try:
            while True:
                was_ready = await self._live()
                await asyncio.sleep(pause_s)
                pause_s = _FIRST_PAUSE_S if was_ready else min(2 * pause_s, _LONGEST_PAUSE_S)
        finally:
            self._lose_orders(WorkerBroken("The worker was stopped in the middle of a span."))

    async def begin(self, order: RestoreOrder) -> Order:
        """Give it a span. Raises WorkerBroken."""
        if self.ready is None:
            late = self._late()
            raise WorkerBroken(f"Rank {late.index} is not ready: {late.why}.")
        begun = self._orders[order.number] = Order(order.number, len(self.ranks))
        # If nobody is there to hear it, the order soon hears of the loss.
        await self.ranks[LEADER].send("restore", **asdict(order))
        return begun

    def next_number(self) -> int:
        """For a new order."""
        return next(self._numbers)

    async def stop(self, order: Order) -> None:
        """Return when no rank does anything for ``order`` any more; a group that doesn't obey is ended and replaced."""
        if order.is_over:
            return
        await self.ranks[LEADER].send("cancel", number=order.number)
        await self._wait_for_later(order)
        try:
            async with asyncio.timeout(self._limits.stop_s):
                await order.wait_over()
        except TimeoutError:
            self._give_up()
            await order.wait_over()

    async def _wait_for_later(self, order: Order) -> None:
        """A preview in the middle of a span has its own limits, and only when it is over the span can stop."""
        later = [other for number, other in self._orders.items() if number > order.number]
        waiting = {asyncio.create_task(_all_over(later)), asyncio.create_task(order.wait_over())}
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()

    async def _live(self) -> bool:
        """One life of the processes, to the end of all; whether they were ready in it."""
        self._given_up, self._leaving = asyncio.get_running_loop().create_future(), None
        events = Events(waiting=self._miss, leaving=self._retire)
        async with self._machines.life(self._load_orders, events) as life:
            self._missing = None
            async with asyncio.TaskGroup() as lives:
                tasks = [
                    lives.create_task(rank.live(start, life.meeting)) for rank, start in zip(self.ranks, life.starts, strict=True)
                ]
                loss = await self._cause(tasks, self._given_up)
                was_ready = self.ready is not None
                self._fall(loss)
                for task in tasks:
                    task.cancel()
        return was_ready

    def _miss(self, loss: Loss) -> None:
        """A machine isn't there yet."""
        if self._missing != loss:
            _log.warning("a machine is missing", extra={"rank": loss.index, "why": loss.why})
        self._missing = loss
        self._on_change()

    def _retire(self, loss: Loss) -> None:
        """A machine is about to stop: no more spans; when those in hand are over, the group starts again without it."""
        self.ready, self.loss, self._leaving = None, loss, loss
        self._on_change()
        self._end_if_leaving()

    def _end_if_leaving(self) -> None:
        if self._leaving is not None and not self._orders:
            self._end(self._leaving)

    def _end(self, loss: Loss) -> None:
        if self._given_up is not None and not self._given_up.done():
            self._given_up.set_result(loss)

    async def _cause(self, lives: Sequence[asyncio.Task[Loss]], given_up: asyncio.Future[Loss]) -> Loss:
        """Wait until a rank is lost; of several that are lost together, the one that took the others with it."""
        ended, others = await asyncio.wait({*lives, given_up}, return_when=asyncio.FIRST_COMPLETED)
        losses = [end.result() for end in ended]
        others.discard(given_up)
        while others and ended and (echo := min(loss.echo for loss in losses)):
            ended, others = await asyncio.wait(others, timeout=_ECHO_S[echo], return_when=asyncio.FIRST_COMPLETED)
            losses += [end.result() for end in ended]
        return min(losses, key=lambda loss: loss.echo)

    def _give_up(self) -> None:
        # Ranks that wait for a hung one look no better than it does.
        who = "it" if len(self.ranks) == 1 else "its group"
        why = f"{who} did not stop within {self._limits.stop_s:g} s and was ended"
        self._end(Loss(index=self.ranks[LEADER].index, why=why))

    def _rise(self) -> None:
        if all(rank.ready for rank in self.ranks):
            self.ready, self.loss = self.ranks[LEADER].ready, None
        self._on_change()

    def _fall(self, loss: Loss) -> None:
        self.ready, self.loss = None, loss
        indices = [rank.index for rank in self.ranks]
        _log.error("rank is lost; its group starts again", extra={"rank": loss.index, "group": indices, "why": loss.why})
        self._lose_orders(_span_error(loss))
        self._on_change()

    def _lose_orders(self, error: ServiceError) -> None:
        for order in self._orders.values():
            order.lose(error)
        self._orders.clear()

    def _hear(self, place: int, message: Message) -> None:
        order = self._orders.get(message.fields.get("number", 0))
        if order is None:
            return
        order.hear(place, message)
        if order.is_over:
            del self._orders[order.number]
            self._end_if_leaving()
        elif message.kind == "progress" and place == LEADER:
            for other in (other for other in self._orders.values() if other is not order):
                other.wait()

    def _late(self) -> Loss:
        """Why the group isn't ready."""
        late = next((rank for rank in self.ranks if rank.ready is None), self.ranks[LEADER])
        return self._missing or self.loss or Loss(index=late.index, why="loading the model")


class Groups:
    """All groups of this worker."""

    def __init__(
        self, orders: Sequence[Sequence[LoadOrder]], limits: RankLimits, metrics: InferenceMetrics, machines: Machines
    ) -> None:  # fmt: skip
        """``orders``: those of each group; ``machines``: what all of them run on."""
        self.all = tuple(Group(each, limits, metrics, self._changed, machines) for each in orders)
        self._listeners: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def ranks(self) -> tuple[Rank, ...]:
        """Of all groups."""
        return tuple(itertools.chain.from_iterable(group.ranks for group in self.all))

    @property
    def ready(self) -> RankReady | None:
        """What the ranks said when all of them are ready and agree; else None."""
        first = self.all[0].ready
        return first if first is not None and not self._disagreement() and all(group.ready for group in self.all) else None

    @property
    def has_failed(self) -> bool:
        """Whether a rank died or could not start, and is not back."""
        return any(group.loss for group in self.all) or bool(self._disagreement())

    @property
    def detail(self) -> str:
        """Why they are not all ready."""
        return self._disagreement() or next((group.detail for group in self.all if group.ready is None), "")

    @property
    def checks(self) -> dict[str, str]:
        """What the ranks found out about their devices when they started last."""
        return {
            f"rank {rank.index} {check.name}": f"{'ok' if check.passed else 'failed'}: {check.detail}"
            for rank in self.ranks
            if rank.checked is not None
            for check in rank.checked.checks
        }

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when a rank has become ready or a group was lost."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Start all processes."""
        self._tasks = [asyncio.create_task(group.keep_alive()) for group in self.all]

    async def close(self) -> None:
        """End all processes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

    def _disagreement(self) -> str:
        known = [rank.ready for rank in self.ranks if rank.ready is not None]
        if all(ready.facts == known[0].facts for ready in known):
            return ""
        return "the ranks run on devices, or have loaded weights, that differ"


def choose_layout(*, device: str, ranks: int, sequence: int, machines: int = 1) -> ParallelLayout:
    """The layout of this worker; 0 ranks: one per GPU, one on a CPU; a sequence of 0: one group of all ranks.

    Args:
        device: cpu, cuda or auto.
        ranks: on each machine.
        sequence: ranks of a group.
        machines: that the worker's ranks are on.

    Raises:
        SettingsError: the ranks can't be divided like this.
    """
    try:
        return layout_of(ranks=ranks or (1 if device == "cpu" else gpu_count()), sequence=sequence, machines=machines)
    except ValueError as error:
        raise SettingsError(f"These settings contradict each other: {error}.") from error


def load_orders(
    *, model: str, directory: Path, sha256: Mapping[str, str], device: str, dtype: str, layout: ParallelLayout, threads: int
) -> tuple[tuple[LoadOrder, ...], ...]:
    """What each rank of each group is to load; 0 threads: the cores divided by the ranks of a machine."""
    share = threads or max(1, len(os.sched_getaffinity(0)) // layout.ranks_here)

    def order(index: int) -> LoadOrder:
        machine, device_index = divmod(index, layout.ranks_here)
        return LoadOrder(
            model=model, directory=str(directory), device=device, dtype=dtype, index=index, threads=share,
            place=index % layout.sequence, group_size=layout.sequence, neighbours=layout.ranks_here - 1, sha256=dict(sha256),
            machine=machine, machines=layout.machines, device_index=device_index,
        )  # fmt: skip

    firsts = range(0, layout.world_size, layout.sequence)
    return tuple(tuple(order(first + place) for place in range(layout.sequence)) for first in firsts)


def gpu_count() -> int:
    """GPUs that this process may use, without asking a driver; at least 1, because a CPU counts as one device."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return max(1, len([part for part in visible.split(",") if part.strip()]))
    return max(1, len(list(Path("/dev").glob("nvidia[0-9]*"))))


async def _all_over(orders: Sequence[Order]) -> None:
    for order in orders:
        await order.wait_over()


def _span_error(loss: Loss) -> ServiceError:
    if isinstance(loss.error, GpuOutOfMemory):
        return GpuOutOfMemory(f"Rank {loss.index} of the worker ran out of memory: {loss.why}.")
    return WorkerBroken(f"Rank {loss.index} of the worker was lost in the middle of a span: {loss.why}.")
