"""The autoencoder on several ranks: what one rank gives, on every rank, plain and fast."""

from functools import cache

import pytest
import torch
from torch import Tensor

from services.inference.gpu.model.fast.vae import FastVae
from services.inference.gpu.model.vae import Vae, VaeState
from services.inference.gpu.parallel.mesh import Mesh
from tests.unit.inference.gpu.goldens import nano, tiny_vae
from tests.unit.inference.gpu.model.fast.reference import ReferenceFrameOps
from tests.unit.inference.gpu.ranks import SIZES, Ranks, apart

Passes = tuple[tuple[int, ...], int, int]
"""Latents of each slice, rows and columns of a latent."""

PASSES: dict[str, Passes] = {
    "long": ((1, 2, 1), 11, 3),
    "image": ((1,), 9, 2),
    "one slice": ((3,), 8, 2),
    "few rows": ((1, 1), 3, 4),
}


def make(mesh: Mesh, name: str, fast: bool) -> Vae:
    vae = tiny_vae(mesh=mesh) if name == "tiny" else nano(mesh).vae
    if fast:
        # What `kernels` would do where there is Triton.
        vae.__dict__["_fused"], vae.__dict__["_fast"] = True, FastVae(vae, ReferenceFrameOps())
    return vae


def there_and_back(mesh: Mesh, name: str, fast: bool, spoilt: bool = False) -> dict[str, tuple[Tensor, Tensor]]:
    """Latents and frames of every kind of clip."""
    vae, results = make(mesh, name, fast), {}
    for case, (slices, rows, columns) in PASSES.items():
        torch.manual_seed(0)
        factor, depth = vae.spec.spatial_factor, vae.spec.temporal_factor
        counts = [depth * count - (depth - 1 if index == 0 else 0) for index, count in enumerate(slices)]
        frames = torch.rand(sum(counts), 3, rows * factor, columns * factor) * 2 - 1
        if spoilt:
            frames[-1, 0, -1, -1] = torch.nan
        encoder, decoder = VaeState(), VaeState()
        latents = torch.cat([vae.encode(part, encoder) for part in frames.split(counts)])
        results[case] = latents, torch.cat([vae.decode(part, decoder) for part in latents.split(slices)])
    return results


@cache
def on_one_rank(name: str) -> dict[str, tuple[Tensor, Tensor]]:
    return there_and_back(Mesh.solo(), name, False)


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize("name", ["tiny", "nano"])
@pytest.mark.parametrize("size", SIZES)
def test_every_rank_has_the_latents_and_frames_of_one_rank(ranks: Ranks, size: int, name: str, fast: bool) -> None:
    expected = on_one_rank(name)
    for of_rank in ranks.run(size, there_and_back, name, fast):
        for case, pair in of_rank.items():
            assert all(apart(mine, theirs) < 1e-5 for mine, theirs in zip(pair, expected[case], strict=True)), case


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
def test_a_number_that_is_none_reaches_every_rank(ranks: Ranks, fast: bool) -> None:
    for of_rank in ranks.run(2, there_and_back, "tiny", fast, True):
        latents, frames = of_rank["one slice"]
        assert latents[-1].isnan().all()
        assert frames[-1].isnan().all()


def rows_kept(mesh: Mesh, rows: int) -> list[int]:
    """Of the past frames of each convolution."""
    vae, state = tiny_vae(mesh=mesh), VaeState()
    vae.decode(torch.zeros(1, rows, 2, 4), state)
    return [tail.shape[2] for tail in state.tails.values()]


def test_a_rank_keeps_its_own_rows_and_one_on_each_side(ranks: Ranks) -> None:
    expected = [rows // 2 + 2 for rows in rows_kept(Mesh.solo(), 8)]
    assert ranks.run(2, rows_kept, 8) == [expected, expected]


def test_few_rows_are_not_divided(ranks: Ranks) -> None:
    assert ranks.run(2, rows_kept, 3) == [rows_kept(Mesh.solo(), 3)] * 2
