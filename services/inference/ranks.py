"""Start, command and watch the rank processes. A rank that dies is replaced by a fresh one."""

import asyncio
import contextlib
import itertools
import logging
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from services.common.channel import Message
from services.common.child import Child, ChildDied, error_from_fields
from services.common.errors import ServiceError, WorkerBroken
from services.common.metrics import InferenceMetrics
from services.inference.messages import LoadOrder, RankReady, RestoreOrder

_log = logging.getLogger(__name__)
RANK_MODULE = "services.inference.gpu.rank"
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0
# What drivers and libraries read, and a child needs like its parent.
_DEVICE_VARIABLES = ("CUDA_", "NVIDIA_", "NCCL_", "PYTORCH_", "TORCH_", "TRITON_", "MKL_", "KMP_")


class FramesEnded(Exception):
    """A rank ended a span because the process that decodes closed its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLimits:
    """Time that a rank has."""

    start_s: float
    """To load its model and to pass its self-test."""

    stop_s: float
    """To stop a span that was cancelled."""


class Order:
    """A span that a rank was given."""

    def __init__(self, number: int) -> None:
        self.number = number
        self._said: asyncio.Queue[Message | WorkerBroken] = asyncio.Queue()
        self._over = asyncio.Event()

    def hear(self, word: Message | WorkerBroken) -> None:
        """What the rank says of it, or how the rank died."""
        self._said.put_nowait(word)
        if isinstance(word, WorkerBroken) or word.kind != "progress":
            self._over.set()

    @property
    def is_over(self) -> bool:
        """Whether the rank does nothing for it any more."""
        return self._over.is_set()

    async def wait_over(self) -> None:
        """Wait for :attr:`is_over`."""
        await self._over.wait()

    async def messages(self) -> AsyncIterator[Message]:
        """Messages of kind "progress", and "done" at last.

        Raises:
            FramesEnded: no frames come any more; whoever sent them knows why.
            WorkerBroken: the rank died.
            ServiceError: what went wrong in the rank.
        """
        while True:
            word = await self._said.get()
            if isinstance(word, WorkerBroken):
                raise word
            if word.kind == "failed":
                raise error_from_fields(word.fields)
            if word.kind in ("lost", "cancelled"):
                raise FramesEnded
            yield word
            if word.kind == "done":
                return


class Rank:
    """One process with a device, kept alive."""

    def __init__(
        self, order: LoadOrder, limits: RankLimits, metrics: InferenceMetrics, on_change: Callable[[], None], module: str
    ) -> None:
        self.index = order.index
        self.ready: RankReady | None = None
        """What it said when it was ready; None while it isn't."""
        self.detail = "loading the model"
        """Why it isn't ready."""
        self.has_failed = False
        """Whether it died, or could not start, since it was ready last."""
        self._load_order = order
        self._limits = limits
        self._metrics = metrics
        self._on_change = on_change
        self._module = module
        self._child: Child | None = None
        self._order: Order | None = None
        self._numbers = itertools.count(1)

    async def keep_alive(self) -> None:
        """Start the process, and again whenever it ends. Runs until it is cancelled."""
        pause_s = _FIRST_PAUSE_S
        while True:
            was_ready = await self._live()
            await asyncio.sleep(pause_s)
            pause_s = _FIRST_PAUSE_S if was_ready else min(2 * pause_s, _LONGEST_PAUSE_S)

    async def begin(self, order: RestoreOrder) -> Order:
        """Give it a span. Raises WorkerBroken."""
        child = self._child
        if child is None:
            raise WorkerBroken(f"Rank {self.index} is not ready: {self.detail}.")
        self._order = Order(order.number)
        try:
            await child.send("restore", **asdict(order))
        except ChildDied as error:
            raise self._broken(str(error)) from error
        return self._order

    def next_number(self) -> int:
        """For a new order."""
        return next(self._numbers)

    async def stop(self, order: Order) -> None:
        """Return when it does nothing for ``order`` any more; a rank that doesn't obey is killed and replaced."""
        child = self._child
        if child is None or order.is_over:
            return
        with contextlib.suppress(ChildDied):
            await child.send("cancel", number=order.number)
        try:
            async with asyncio.timeout(self._limits.stop_s):
                await order.wait_over()
        except TimeoutError:
            _log.error("rank doesn't stop and is killed", extra={"rank": self.index, "stop_s": self._limits.stop_s})
            child.kill()
            await order.wait_over()

    def memory_bytes(self) -> int:
        """Resident memory of the process; 0 while there is none."""
        child = self._child
        try:
            return int(psutil.Process(child.pid).memory_info().rss) if child else 0
        except psutil.Error:
            return 0

    async def _live(self) -> bool:
        """One process, from its start to its death; whether it was ready in between."""
        self._metrics.rank_starts.inc()
        try:
            child = await self._start()
        except OSError as error:
            self._fall(error)
            return False
        async with child:
            try:
                await self._load(child)
                while True:
                    self._hear(await child.receive())
            except (ChildDied, ServiceError, TimeoutError) as error:
                was_ready = self.ready is not None
                self._fall(error)
                return was_ready

    async def _start(self) -> Child:
        kept = {name: value for name, value in os.environ.items() if name.startswith(_DEVICE_VARIABLES)}
        # Threads that spin while they wait would take the cores from decoder and encoder.
        threads = {"OMP_NUM_THREADS": str(self._load_order.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        return await Child.start(self._module, environment={"SEEDVR2_SERVICE": f"inference-rank-{self.index}"} | kept | threads)

    async def _load(self, child: Child) -> None:
        started = time.monotonic()
        async with asyncio.timeout(self._limits.start_s):
            await child.send("load", **asdict(self._load_order))
            message = await child.receive()
        self.ready, self.detail, self.has_failed, self._child = RankReady(**message.fields), "", False, child
        self._metrics.model_load.labels(self.index).set(time.monotonic() - started)
        self._metrics.gpu_memory.labels(self.index).set(self.ready.gpu_memory_bytes)
        _log.info("rank is ready", extra={"rank": self.index, "pid": child.pid, "facts": self.ready.facts})
        self._on_change()

    def _hear(self, message: Message) -> None:
        if "gpu_memory_bytes" in message.fields:
            self._metrics.gpu_memory.labels(self.index).set(message.fields["gpu_memory_bytes"])
        if self._order is not None and message.fields.get("number") == self._order.number:
            self._order.hear(message)

    def _fall(self, error: Exception) -> None:
        why = str(error) or f"it was not ready after {self._limits.start_s:g} s"
        self.ready, self._child, self.detail, self.has_failed = None, None, why, True
        _log.error("rank is lost and is started again", extra={"rank": self.index, "why": why})
        if self._order is not None:
            self._order.hear(self._broken(why))
            self._order = None
        self._on_change()

    def _broken(self, why: str) -> WorkerBroken:
        return WorkerBroken(f"Rank {self.index} of the worker was lost in the middle of a span: {why}.")


class Ranks:
    """All ranks of this worker."""

    def __init__(
        self, orders: Sequence[LoadOrder], limits: RankLimits, metrics: InferenceMetrics, module: str = RANK_MODULE
    ) -> None:
        """``module`` is what each process runs."""
        self.all = tuple(Rank(order, limits, metrics, self._changed, module) for order in orders)
        self._listeners: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []
        for rank in self.all:
            metrics.memory.labels(rank.index).set_function(rank.memory_bytes)

    @property
    def ready(self) -> RankReady | None:
        """What the ranks said when all of them are ready and agree; else None."""
        first = self.all[0].ready
        return first if first is not None and not self._disagreement() and all(rank.ready for rank in self.all) else None

    @property
    def has_failed(self) -> bool:
        """Whether one of them died or could not start, and is not back."""
        return any(rank.has_failed for rank in self.all) or bool(self._disagreement())

    @property
    def detail(self) -> str:
        """Why they are not all ready."""
        return self._disagreement() or next((f"rank {r.index}: {r.detail}" for r in self.all if r.ready is None), "")

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` when a rank has become ready or was lost."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Start all processes."""
        self._tasks = [asyncio.create_task(rank.keep_alive()) for rank in self.all]

    async def close(self) -> None:
        """End all processes."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _changed(self) -> None:
        for listener in self._listeners:
            listener()

    def _disagreement(self) -> str:
        known = [rank.ready for rank in self.all if rank.ready is not None]
        if all(ready.facts == known[0].facts for ready in known):
            return ""
        return "the ranks run on devices, or have loaded weights, that differ"


def load_orders(
    *, model: str, directory: Path, sha256: Mapping[str, str], device: str, dtype: str, ranks: int, threads: int
) -> tuple[LoadOrder, ...]:
    """What each rank is to load; 0 ranks: one per GPU, one on a CPU; 0 threads: the cores divided by the ranks."""
    count = ranks or (1 if device == "cpu" else gpu_count())
    cores = len(os.sched_getaffinity(0))
    return tuple(
        LoadOrder(
            model=model, directory=str(directory), device=device, dtype=dtype, index=index,
            threads=threads or max(1, cores // count), sha256=dict(sha256),
        )
        for index in range(count)
    )  # fmt: skip


def gpu_count() -> int:
    """GPUs that this process may use, without asking a driver; at least 1, because a CPU counts as one device."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return max(1, len([part for part in visible.split(",") if part.strip()]))
    return max(1, len(list(Path("/dev").glob("nvidia[0-9]*"))))
