"""The transformer on several ranks: the velocity of one rank on every rank, by heads and by windows, plain and fast."""

from collections.abc import Callable
from functools import cache

import pytest
import torch
from torch import Tensor

from services.inference.gpu.model.dit import Clip, Dit
from services.inference.gpu.model.fast.dit import FastDit
from services.inference.gpu.model.sampler import condition
from services.inference.gpu.parallel.mesh import Mesh
from tests.unit.inference.gpu.goldens import KERNELS, TINY_DITS, nano, tensors, tiny_dit
from tests.unit.inference.gpu.model.fast.reference import ReferenceTokenOps
from tests.unit.inference.gpu.ranks import SIZES, Ranks, apart

GOLDENS = [(rules, case) for rules in TINY_DITS for case in ("image", "video5", "wide")]
SHAPES = {
    "uneven": (3, 10, 14),
    "several windows": (5, 12, 20),
    "one window": (1, 4, 6),
    "fewer tokens than ranks": (1, 2, 4),
    "one token": (1, 2, 2),
}


def run(dit: Dit, clip: Clip, *, fast: bool) -> Tensor:
    if not fast:
        return dit(*clip)
    layouts = dit._layouts(dit._grid(clip), len(clip.text), clip.x.device)
    return FastDit(dit, ReferenceTokenOps(), KERNELS.attend)(*clip, layouts, lambda: None)


def golden_velocities(mesh: Mesh, fast: bool) -> dict[str, Tensor]:
    """Of the goldens' small transformers, which have two heads: divided by heads for two ranks, else by windows."""
    inputs, results = tensors("dit/inputs"), {}
    for rules, case in GOLDENS:
        x = torch.cat([inputs[f"{case}.noise"], condition(inputs[f"{case}.lq"])], dim=-1)
        clip = Clip(x, inputs[f"{case}.txt"], inputs[f"{case}.timestep"][0])
        results[f"{rules} {case}"] = run(tiny_dit(rules, mesh=mesh), clip, fast=fast)
    return results


def nano_velocities(mesh: Mesh, fast: bool, spoilt: bool = False) -> dict[str, Tensor]:
    """Of nano, which has six heads: divided by windows for four ranks, else by heads."""
    model, results = nano(mesh), {}
    for name, shape in SHAPES.items():
        x = torch.randn((*shape, 33), generator=torch.Generator().manual_seed(0))
        if spoilt:
            x[-1, -1, -1, 0] = torch.nan
        results[name] = run(model.dit, Clip(x, model.text, torch.tensor(1000.0)), fast=fast)
    return results


@cache
def on_one_rank(velocities: Callable[[Mesh, bool], dict[str, Tensor]]) -> dict[str, Tensor]:
    return velocities(Mesh.solo(), False)


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize("velocities", [golden_velocities, nano_velocities], ids=["goldens", "nano"])
@pytest.mark.parametrize("size", SIZES)
def test_every_rank_has_the_velocities_of_one_rank(ranks: Ranks, size: int, velocities, fast: bool) -> None:
    expected = on_one_rank(velocities)
    for of_rank in ranks.run(size, velocities, fast):
        assert all(apart(mine, expected[name]) < 1e-5 for name, mine in of_rank.items())


@pytest.mark.parametrize("size", [3, 4], ids=["heads", "windows"])
def test_a_number_that_is_none_reaches_every_rank(ranks: Ranks, size: int) -> None:
    for of_rank in ranks.run(size, nano_velocities, False, True):
        assert all(velocity.isnan().any() for velocity in of_rank.values())
        assert of_rank["uneven"].isnan().all()


def different_weights(mesh: Mesh) -> Tensor:
    model = nano(mesh)
    if mesh.rank == 1:
        model.dit.get_parameter("blocks.7.attn.proj_qkv.all.weight").mul_(1.01)
    return model.dit(torch.ones(3, 10, 14, 33), model.text, torch.tensor(1000.0))


@pytest.mark.parametrize("size", SIZES)
def test_what_one_rank_does_wrong_shows(ranks: Ranks, size: int) -> None:
    expected = different_weights(Mesh.solo())
    for velocity in ranks.run(size, different_weights):
        assert apart(velocity, expected) > 1e-4
