"""The transformer's fast path without its kernels: the way of tokens through blocks and windows, against ``dit.py``."""

import pytest
import torch
from torch import Tensor

from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.fast.dit import FastDit
from services.inference.gpu.model.sampler import condition
from tests.unit.inference.gpu.goldens import KERNELS, nano, tensors, tiny_dit
from tests.unit.inference.gpu.model.fast.reference import ReferenceTokenOps


def fast(dit: Dit, x: Tensor, text: Tensor, timestep: Tensor, seen: list[int] | None = None) -> Tensor:
    patch = dit.spec.patch
    layouts = dit._layouts((x.shape[0], x.shape[1] // patch, x.shape[2] // patch), len(text), x.device)
    path = FastDit(dit, ReferenceTokenOps(), KERNELS.attend)
    return path(x, text, timestep, layouts, lambda: None if seen is None else seen.append(1))


@pytest.mark.parametrize("rules", ["3b", "7b"])
@pytest.mark.parametrize("case", ["image", "video5", "wide"])
def test_velocities_are_those_of_the_reference(case: str, rules: str) -> None:
    inputs, golden = tensors("dit/inputs"), tensors(f"dit/tiny_{rules}_{case}")["v"]
    x = torch.cat([inputs[f"{case}.noise"], condition(inputs[f"{case}.lq"])], dim=-1)
    velocity = fast(tiny_dit(rules), x, inputs[f"{case}.txt"], inputs[f"{case}.timestep"][0])
    seen = velocity if case == "image" else velocity[:, ::3, ::5]
    torch.testing.assert_close(seen, golden, atol=2e-5, rtol=1e-4)


def test_a_model_without_an_output_norm_gives_what_the_plain_path_gives() -> None:
    model, x, time = nano(), torch.randn(3, 12, 16, 33), torch.tensor(1000.0)
    torch.testing.assert_close(fast(model.dit, x, model.text, time), model.dit(x, model.text, time), atol=5e-5, rtol=1e-4)


def test_work_can_be_stopped_before_every_block() -> None:
    model, seen = nano(), []
    fast(model.dit, torch.randn(1, 4, 4, 33), model.text, torch.tensor(1000.0), seen)
    assert len(seen) == model.spec.dit.blocks
