"""A rank process, from its start to its end."""

import asyncio
import logging
import os
import signal
import socket
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import psutil

from services.common.channel import ChannelGarbled, Message
from services.common.child import Child, ChildDied
from services.common.errors import InternalError, ServiceError, WorkerBroken
from services.common.metrics import DEVICE_NAMES, InferenceMetrics
from services.inference.messages import LoadOrder, RankChecked, RankReady, rank_checked

_log = logging.getLogger(__name__)
RANK_MODULE = "services.inference.gpu.rank"
# What drivers and libraries read, and a child needs like its parent.
_DEVICE_VARIABLES = ("CUDA_", "NVIDIA_", "NCCL_", "GLOO_", "PYTORCH_", "TORCH_", "TRITON_", "MKL_", "KMP_")
# Ranks of a group are on one machine: nobody else shall be able to reach their sockets.
_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "NCCL_SOCKET_IFNAME": "lo"}


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
        self, order: LoadOrder, limits: RankLimits, metrics: InferenceMetrics, module: str, *,
        on_ready: Callable[[], None], hear: Callable[[Message], None],
    ) -> None:  # fmt: skip
        """``module`` is what the process runs; ``hear`` takes what it says once it is ready."""
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
        self._module = module
        self._on_ready = on_ready
        self._pass_on = hear
        self._child: Child | None = None
        metrics.memory.labels(self.index).set_function(self.memory_bytes)

    async def live(self, links: Sequence[socket.socket], meeting: str) -> Loss:
        """One process, from its start to its end; cancelling this ends it.

        Args:
            links: its sockets to the other ranks of its group; closed here, as soon as it has them.
            meeting: file by which these ranks find each other.
        """
        self._metrics.rank_starts.inc()
        order = replace(self._order, links=tuple(end.fileno() for end in links), meeting=meeting)
        try:
            async with await self._start(links) as child:
                await self._load(child, order)
                while True:
                    self._hear(await child.receive())
        except (ChildDied, ChannelGarbled, ServiceError, TimeoutError, OSError) as error:
            return self._loss(error)
        finally:
            self.ready, self._child = None, None
            self._metrics.gpu_memory.labels(self.index).set(0)

    async def send(self, kind: str, **fields: Any) -> bool:
        """Say something to it; whether it is there to hear it."""
        if self._child is None:
            return False
        try:
            await self._child.send(kind, **fields)
        except ChildDied:
            return False
        return True

    def memory_bytes(self) -> int:
        """Resident memory of the process; 0 while there is none."""
        child = self._child
        try:
            return int(psutil.Process(child.pid).memory_info().rss) if child else 0
        except psutil.Error:
            return 0

    async def _start(self, links: Sequence[socket.socket]) -> Child:
        kept = {name: value for name, value in os.environ.items() if name.startswith(_DEVICE_VARIABLES)}
        # Threads that spin while they wait would take the cores from decoder and encoder.
        threads = {"OMP_NUM_THREADS": str(self._order.threads), "OMP_WAIT_POLICY": "PASSIVE"}
        environment = {"SEEDVR2_SERVICE": f"inference-rank-{self.index}"} | _LOOPBACK | kept | threads
        try:
            return await Child.start(self._module, environment=environment, handed=links)
        finally:
            # An end that stays open here would hide from the other ranks that this one has died.
            for end in links:
                end.close()

    async def _load(self, child: Child, order: LoadOrder) -> None:
        started = time.monotonic()
        async with asyncio.timeout(self._limits.start_s):
            await child.send("load", **asdict(order))
            while (message := await child.receive()).kind == "checked":
                self._note_checks(rank_checked(message.fields))
        self.ready, self._child = RankReady(**message.fields), child
        self._note_available(message)
        self._metrics.model_load.labels(self.index).set(time.monotonic() - started)
        self._metrics.gpu_memory.labels(self.index).set(self.ready.gpu_memory_bytes)
        _log.info("rank is ready", extra={"rank": self.index, "pid": child.pid, "facts": self.ready.facts})
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


def _echo(error: Exception) -> int:
    """A rank that loses the others says so, fails, breaks off, or is ended by the watchdog of its exchanges."""
    if isinstance(error, ChildDied):
        return int(error.signal_number in (0, signal.SIGABRT))
    return 2 if isinstance(error, WorkerBroken) else int(isinstance(error, InternalError))
