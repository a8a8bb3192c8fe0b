"""A rank process, from its start to its end."""

import asyncio
import logging
import signal
import time
import types
from collections.abc import Awaitable, Callable
from dataclasses import asdict, dataclass, replace
from typing import Any, Protocol, Self

import psutil

from services.common.channel import Buffer, ChannelGarbled, Message
from services.common.child import ChildDied
from services.common.errors import InternalError, ServiceError, WorkerBroken
from services.common.metrics import DEVICE_NAMES, InferenceMetrics
from services.inference.messages import LoadOrder, RankChecked, RankReady, rank_checked

_log = logging.getLogger(__name__)


class MachineLost(Exception):
    """The machine on which a rank runs is gone; the text says which and how."""


class RankProcess(Protocol):
    """The process of a rank, on whichever machine; it ends with the block that it is entered in."""

    @property
    def pid(self) -> int | None:
        """Process id; None on another machine."""

    async def send(self, kind: str, payload: Buffer = b"", **fields: Any) -> None:
        """Say something to it. Raises ChildDied or MachineLost."""

    async def receive(self) -> Message:
        """Wait for what it says. Raises ServiceError where it said that, ChildDied or MachineLost."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None: ...


Start = Callable[[], Awaitable[RankProcess]]
"""Starts a rank's process. Raises OSError or MachineLost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankLimits:
    """Time that a rank has."""

    start_s: float
    """To load its model and to pass its self-test."""

    stop_s: float
    """To stop a span that was cancelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """How a rank ended."""

    index: int
    """Of the rank."""

    why: str
    """In words."""

    error: ServiceError | None = None
    """What the rank said itself."""

    echo: int = 0
    """How likely another rank's end was the cause: 0 not at all, 1 perhaps, 2 for sure."""


class Rank:
    """One process with a device."""

    def __init__(
        self, order: LoadOrder, limits: RankLimits, metrics: InferenceMetrics, *,
        on_ready: Callable[[], None], hear: Callable[[Message], None],
    ) -> None:  # fmt: skip
        """``hear`` takes what it says once it is ready."""
        self.index = order.index
        self.ready: RankReady | None = None
        """What it said when it was ready; None while it isn't."""
        self.checked: RankChecked | None = None
        """What it found out about its device when it started last."""
        self.available_bytes = 0
        """Memory that it could hold on its device, as it said last."""
        self._order = order
        self._limits = limits
        self._metrics = metrics
        self._on_ready = on_ready
        self._pass_on = hear
        self._process: RankProcess | None = None
        if order.machine == 0:
            # Of those on other machines, the rank hosts there tell it.
            metrics.memory.labels(self.index).set_function(self.memory_bytes)

    async def live(self, start: Start, meeting: str) -> Loss:
        """One process, from its start to its end; cancelling this ends it.

        Args:
            start: what starts it.
            meeting: where the ranks of its group find each other.
        """
        self._metrics.rank_starts.inc()
        try:
            async with await start() as process:
                await self._load(process, replace(self._order, meeting=meeting))
                while True:
                    self._hear(await process.receive())
        except (ChildDied, MachineLost, ChannelGarbled, ServiceError, TimeoutError, OSError) as error:
            return self._loss(error)
        finally:
            self.ready, self._process = None, None
            self._metrics.gpu_memory.labels(self.index).set(0)

    async def send(self, kind: str, **fields: Any) -> bool:
        """Say something to it; whether it is there to hear it."""
        if self._process is None:
            return False
        try:
            await self._process.send(kind, **fields)
        except (ChildDied, MachineLost):
            return False
        return True

    def memory_bytes(self) -> int:
        """Resident memory of the process; 0 while there is none."""
        process = self._process
        return resident_bytes(process.pid) if process and process.pid else 0

    async def _load(self, process: RankProcess, order: LoadOrder) -> None:
        started = time.monotonic()
        async with asyncio.timeout(self._limits.start_s):
            await process.send("load", **asdict(order))
            while (message := await process.receive()).kind == "checked":
                self._note_checks(rank_checked(message.fields))
        self.ready, self._process = RankReady(**message.fields), process
        self._note_available(message)
        self._metrics.model_load.labels(self.index).set(time.monotonic() - started)
        self._metrics.gpu_memory.labels(self.index).set(self.ready.gpu_memory_bytes)
        _log.info("rank is ready", extra={"rank": self.index, "pid": process.pid, "facts": self.ready.facts})
        self._on_ready()

    def _note_checks(self, checked: RankChecked) -> None:
        self.checked = checked
        for check in checked.checks:
            self._metrics.device_check.labels(self.index, check.name).set(check.passed)
            level = logging.INFO if check.passed else logging.ERROR if check.required else logging.WARNING
            found = {"rank": self.index, "check": check.name, "passed": check.passed, "detail": check.detail}
            _log.log(level, "device check", extra=found)
        names = [checked.device.get(name, "") for name in DEVICE_NAMES]
        self._metrics.device_info.labels(self.index, *names).set(1)

    def _note_available(self, message: Message) -> None:
        if "available_bytes" in message.fields:
            self.available_bytes = int(message.fields["available_bytes"])
            self._metrics.available_memory.labels(self.index).set(self.available_bytes)

    def _hear(self, message: Message) -> None:
        self._note_available(message)
        if "gpu_memory_bytes" in message.fields:
            self._metrics.gpu_memory.labels(self.index).set(message.fields["gpu_memory_bytes"])
        self._pass_on(message)

    def _loss(self, error: Exception) -> Loss:
        why = str(error).rstrip(".") or f"it was not ready after {self._limits.start_s:g} s"
        said = error if isinstance(error, ServiceError) else None
        return Loss(index=self.index, why=why, error=said, echo=_echo(error))


def resident_bytes(pid: int) -> int:
    """Memory of a process of this machine; 0 where it has ended."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def _echo(error: Exception) -> int:
    """A rank that loses the others says so, fails, breaks off, or is ended by the watchdog of its exchanges."""
    if isinstance(error, ChildDied):
        return int(error.signal_number in (0, signal.SIGABRT))
    return 2 if isinstance(error, WorkerBroken) else int(isinstance(error, InternalError))
