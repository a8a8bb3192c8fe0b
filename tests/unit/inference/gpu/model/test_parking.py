"""States that wait in host memory, with the CPU as the device."""

import pytest
import torch
from torch import Tensor

from services.inference.gpu.model.fast.vae import FastVae
from services.inference.gpu.model.parking import Parking
from services.inference.gpu.model.vae import Vae, VaeState
from tests.unit.inference.gpu.goldens import nano
from tests.unit.inference.gpu.model.fast.reference import ReferenceFrameOps

CPU = torch.device("cpu")


class Stream:
    """Slices of a few frames through encoder and decoder by turns."""

    def __init__(self, vae: Vae, path: str) -> None:
        fast = FastVae(vae, ReferenceFrameOps())
        self._encode = vae.moments if path == "plain" else fast.moments
        self._decode = vae.decoder if path == "plain" else fast.decode
        self.encoder, self.decoder = VaeState(), VaeState()

    def run(self, parking: Parking | None) -> list[Tensor]:
        generator, found = torch.Generator().manual_seed(3), []
        for _ in range(3):
            frames = torch.randn((2, 3, 16, 24), generator=generator)
            latents = torch.randn((2, 16, 4, 6), generator=generator)
            if parking is not None:
                parking.enter(self.encoder)
            found.append(self._encode(frames, self.encoder))
            if parking is not None:
                parking.enter(self.decoder)
            found.append(self._decode(latents, self.decoder))
        return found


@pytest.mark.parametrize("path", ["plain", "fast"])
def test_states_that_take_turns_give_the_same_bytes(path: str):
    vae = nano().vae
    expected = Stream(vae, path).run(None)
    stream = Stream(vae, path)
    found = stream.run(Parking(CPU, stream.encoder, stream.decoder))
    assert all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_state_waits_in_the_same_place_each_time():
    stream = Stream(nano().vae, "plain")
    parking = Parking(CPU, stream.encoder, stream.decoder)
    stream.run(parking)
    parking.enter(None)
    waiting = {key: tail.data_ptr() for key, tail in stream.encoder.tails.items()}
    parking.enter(stream.encoder)
    there = {key: tail.data_ptr() for key, tail in stream.encoder.tails.items()}
    assert waiting
    assert not set(waiting.values()) & set(there.values())
    parking.enter(None)
    assert {key: tail.data_ptr() for key, tail in stream.encoder.tails.items()} == waiting
