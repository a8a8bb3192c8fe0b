"""How long stages take, and finished frames on their way from the device. On a GPU the host runs ahead; on a CPU it can't."""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from services.inference.gpu.model.frames import Frames

OnStage = Callable[[str, float, int], None]
"""Called after each stage with its name, its seconds and its frames."""


class Stages:
    """Times stages where they end when the host is done with them."""

    ahead = 0
    """Slices that the host may be ahead of what is finished."""

    def __init__(self, on_stage: OnStage) -> None:
        self._on_stage = on_stage

    @contextmanager
    def time(self, name: str, frames: int) -> Iterator[None]:
        """Report the stage inside when it has ended, unless it failed."""
        start = time.perf_counter()
        yield
        self._on_stage(name, time.perf_counter() - start, frames)

    def report(self) -> None:
        """Wait for what runs and report it."""


class _GpuStages(Stages):
    """Times stages by events in the GPU's stream, so that the host can prepare what comes next."""

    ahead = 1

    def __init__(self, on_stage: OnStage) -> None:
        super().__init__(on_stage)
        self._running: deque[tuple[str, int, torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def time(self, name: str, frames: int) -> Iterator[None]:
        """As above; but the host runs ahead by a slice at most, so that work can still be stopped between slices."""
        start, end = _event(), _event()
        start.record()
        yield
        end.record()
        self._running.append((name, frames, start, end))
        self._report_all_but(2)

    def report(self) -> None:
        self._report_all_but(0)

    def _report_all_but(self, count: int) -> None:
        while len(self._running) > count:
            name, frames, start, end = self._running.popleft()
            end.synchronize()
            self._on_stage(name, start.elapsed_time(end) / 1e3, frames)


def stages_on(device: torch.device, on_stage: OnStage) -> Stages:
    """The clock that suits a device."""
    return _GpuStages(on_stage) if device.type == "cuda" else Stages(on_stage)


class Download:
    """Finished frames on their way to the host, and whether they are numbers."""

    def __init__(self, frames: Tensor, finite: Tensor) -> None:
        self._frames = frames.to("cpu", non_blocking=True)
        self._finite = finite.to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if frames.is_cuda:
            self._arrived = _event()
            self._arrived.record()

    def wait(self) -> tuple[bool, Frames]:
        """Whether all are finite, and the frames."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._finite), self._frames.numpy()


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
