"""Goldens of the embedded model with its trained weights."""

from collections.abc import Iterator

import torch

from bench.parity.measure import Folder, Pair, Row, Tolerance, compare, thinned
from services.inference.gpu.model.sampler import condition
from services.inference.gpu.model.vae import VaeState
from services.inference.gpu.model.weights import Model
from tests.unit.inference.gpu.goldens import nano

MARK = "clip5"
"""A file that such a folder has."""

LEFT_OUT: dict[str, str] = {}
"""What is not compared, by a part of its name, and why."""

WEIGHTS: tuple[str, ...] = ()
"""Files that are no results."""

_CASES = ("image", "clip5", "clip17_wide")
_CLOSE = Tolerance(atol=2e-4)


def rows(folder: Folder) -> Iterator[Row]:
    """All cases that the folder has."""
    model = nano()
    yield from (_restored(model, folder, case) for case in _CASES if folder.has(case))


def _restored(model: Model, folder: Folder, case: str) -> Row:
    golden = folder.tensors(case)
    latents = model.vae.encode(golden["frames"].float() / 255 * 2 - 1, VaeState())
    inputs = torch.cat([golden["noise"], condition(latents)], dim=-1)
    velocity = model.dit(inputs, model.text, torch.tensor(1000.0))
    found = {
        "latent_mean": latents,
        "v": velocity,
        "restored": model.vae.decode(golden["noise"] - velocity, VaeState()),
    }
    if "vae_only" in golden:
        found["vae_only"] = model.vae.decode(latents, VaeState())
    pairs = [Pair(thinned(value, golden[name]), golden[name]) for name, value in found.items() if name in golden]
    return compare(case, pairs, _CLOSE)
