"""Encoder and decoder states of which one at a time is on the device, while the other waits in host memory.

They change places once a window, not once a slice. Values don't change. Where the device is the host the same code runs.
"""

import torch
from torch import Tensor, nn

from services.inference.gpu.model.vae import VaeState


class Parking:
    """Where states of one stream wait."""

    def __init__(self, device: torch.device, *states: VaeState) -> None:
        self._device = device
        self._places: dict[VaeState, dict[nn.Module, Tensor]] = {state: {} for state in states}
        self._parked: set[VaeState] = set()

    def enter(self, state: VaeState | None) -> None:
        """Bring a state to the device; the others wait. None: all wait."""
        for other in self._places:
            if other is not state and other not in self._parked:
                self._park(other)
        if state is not None and state in self._parked:
            self._fetch(state)

    def fetch(self) -> None:
        """Bring all states to the device."""
        for state in list(self._parked):
            self._fetch(state)

    def _park(self, state: VaeState) -> None:
        places = self._places[state]
        for key, tail in state.tails.items():
            if key not in places or places[key].shape != tail.shape:
                # Pinned, so that the copy waits in the stream and not the host.
                places[key] = torch.empty_like(tail, device="cpu", pin_memory=self._device.type == "cuda")
            state.tails[key] = places[key].copy_(tail, non_blocking=True)
        self._parked.add(state)

    def _fetch(self, state: VaeState) -> None:
        for key, tail in state.tails.items():
            state.tails[key] = torch.empty_like(tail, device=self._device).copy_(tail, non_blocking=True)
        self._parked.discard(state)
