"""Transformer blocks that wait in host memory and come to the device before their turn.

Matrices wait, vectors stay. Each block's matrices lie side by side in pinned memory and cross in one copy, on a stream of
their own, two blocks ahead: on a GPU the copy takes less time than a block does, so nothing waits. No value changes. Where the
device is the host the same code runs without streams.
"""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

_AHEAD = 2
_ALIGNED = 512
"""Bytes; kernels want their matrices to start at round addresses."""


class OffloadedBlocks:
    """Blocks on a device that has room for three of them."""

    def __init__(self, blocks: Sequence[nn.Module], device: torch.device) -> None:
        self._blocks = blocks
        self._device = device
        self._homes = [_Home(block, device) for block in blocks]
        room = max(len(home.matrices) for home in self._homes)
        self._slots = [torch.empty(room, dtype=torch.uint8, device=device) for _ in range(min(_AHEAD + 1, len(blocks)))]
        self._stream = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]
        self._passes = 0
        # Only now, when there was memory for everything: where there isn't, the blocks stay as they are.
        for home in self._homes:
            home.point_home()

    def in_turn(self) -> Iterator[Any]:
        """Each block, its parameters on the device until the next one is asked for."""
        if self._stream is not None:
            # What a pass before this one still computes needs its slots.
            self._stream.wait_stream(torch.cuda.current_stream(self._device))
        self._passes += 1
        this = self._passes
        try:
            arrivals = [self._fetch(index) for index in range(len(self._slots))]
            for index, block in enumerate(self._blocks):
                self._wait(arrivals[index])
                self._homes[index].point_to(self._slot(index))
                yield block
                self._homes[index].point_home()
                if index + len(self._slots) < len(self._blocks):
                    arrivals.append(self._fetch(index + len(self._slots), after=self._event()))
        finally:
            # A pass that was stopped may be closed late, when another one has begun.
            if this == self._passes:
                for home in self._homes:
                    home.point_home()

    def restore(self) -> None:
        """Bring all blocks back to the device, to stay."""
        for home in self._homes:
            home.point_to(home.matrices.to(self._device))

    def _slot(self, index: int) -> Tensor:
        return self._slots[index % len(self._slots)]

    def _fetch(self, index: int, after: Any = None) -> Any:
        """Begin to copy a block into its slot once ``after`` is reached; what is reached when it is there."""
        matrices = self._homes[index].matrices
        with torch.cuda.stream(self._stream) if self._stream is not None else nullcontext():
            if self._stream is not None and after is not None:
                self._stream.wait_event(after)
            self._slot(index)[: len(matrices)].copy_(matrices, non_blocking=True)
            return self._event()

    def _event(self) -> Any:
        """What has been asked of the current stream so far."""
        return torch.cuda.current_stream(self._device).record_event() if self._stream is not None else None

    def _wait(self, arrival: Any) -> None:
        if self._stream is not None:
            torch.cuda.current_stream(self._device).wait_event(arrival)


class _Home:
    """The matrices of a block in host memory."""

    def __init__(self, block: nn.Module, device: torch.device) -> None:
        self._parameters = [parameter for parameter in block.parameters() if parameter.ndim > 1]
        self._starts, total = [], 0
        for parameter in self._parameters:
            self._starts.append(total)
            total += -(-parameter.nbytes // _ALIGNED) * _ALIGNED
        self.matrices = torch.empty(total, dtype=torch.uint8, pin_memory=device.type == "cuda")
        """All bytes, one matrix after the other."""
        for parameter, view in self._views(self.matrices):
            view.copy_(parameter)

    def point_to(self, place: Tensor) -> None:
        """Let the block compute with the matrices that lie there."""
        for parameter, view in self._views(place):
            parameter.data = view

    def point_home(self) -> None:
        """Let the parameters be what waits in host memory."""
        self.point_to(self.matrices)

    def _views(self, place: Tensor) -> Iterator[tuple[nn.Parameter, Tensor]]:
        for parameter, start in zip(self._parameters, self._starts, strict=True):
            yield parameter, place[start : start + parameter.nbytes].view(parameter.dtype).view(parameter.shape)
