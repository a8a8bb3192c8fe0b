"""The transformer on several ranks: the velocity of one rank on every rank, by heads and by windows, plain and fast."""

import pytest
import torch
from torch import Tensor

from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.fast.dit import FastDit
from services.inference.gpu.model.sampler import condition
from services.inference.gpu.parallel.mesh import Mesh
from tests.unit.inference.gpu.goldens import KERNELS, TINY_DIT, nano, tensors
from tests.unit.inference.gpu.model.fast.reference import ReferenceTokenOps
from tests.unit.inference.gpu.ranks import SIZES, Ranks, apart

TIME = torch.tensor(1000.0)


def run(dit: Dit, x: Tensor, text: Tensor, *, fast: bool) -> Tensor:
    if not fast:
        return dit(x, text, TIME)
    grid = (x.shape[0], x.shape[1] // dit.spec.patch, x.shape[2] // dit.spec.patch)
    layouts = dit._layouts(grid, len(text), x.device)
    return FastDit(dit, ReferenceTokenOps(), KERNELS.attend)(x, text, TIME, layouts, lambda: None)


def golden_velocity(mesh: Mesh, case: str, fast: bool) -> Tensor:
    inputs, dit = tensors("dit/inputs"), Dit(TINY_DIT, KERNELS, mesh).requires_grad_(False)
    dit.load_state_dict(tensors("dit/tiny_3b_weights"))
    x = torch.cat([inputs[f"{case}.noise"], condition(inputs[f"{case}.lq"])], dim=-1)
    return run(dit, x, inputs[f"{case}.txt"], fast=fast)


def nano_velocity(mesh: Mesh, shape: tuple[int, int, int], fast: bool, spoilt: int = -1) -> Tensor:
    model = nano()
    dit = Dit(model.spec.dit, KERNELS, mesh).requires_grad_(False)
    dit.load_state_dict(model.dit.state_dict())
    x = torch.randn((*shape, 33), generator=torch.Generator().manual_seed(0))
    if spoilt >= 0:
        x.view(-1, 33)[spoilt] = torch.nan
    return run(dit, x, model.text, fast=fast)


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize("case", ["image", "video5", "wide"])
@pytest.mark.parametrize("size", SIZES)
def test_every_rank_has_the_velocity_of_one_rank(ranks: Ranks, size: int, case: str, fast: bool) -> None:
    expected = golden_velocity(Mesh.solo(), case, fast)
    for velocity in ranks.run(size, golden_velocity, case, fast):
        assert apart(velocity, expected) < 1e-5


@pytest.mark.parametrize("fast", [False, True], ids=["plain", "fast"])
@pytest.mark.parametrize(
    ("size", "shape"),
    [(2, (3, 10, 14)), (3, (3, 10, 14)), (4, (5, 12, 20)), (4, (1, 2, 6)), (3, (1, 2, 2))],
    ids=["heads", "odd heads", "windows", "fewer tokens than ranks", "one token"],
)
def test_clips_and_images_of_any_size_are_divided(ranks: Ranks, size: int, shape: tuple[int, int, int], fast: bool) -> None:
    expected = nano_velocity(Mesh.solo(), shape, fast)
    for velocity in ranks.run(size, nano_velocity, shape, fast):
        assert apart(velocity, expected) < 1e-5


@pytest.mark.parametrize("size", [3, 4], ids=["heads", "windows"])
def test_a_number_that_is_none_reaches_every_rank(ranks: Ranks, size: int) -> None:
    for velocity in ranks.run(size, nano_velocity, (3, 10, 14), False, 3 * 10 * 14 - 1):
        assert velocity.isnan().all()
