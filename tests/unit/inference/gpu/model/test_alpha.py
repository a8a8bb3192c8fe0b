import pytest
import torch
from torch import Tensor

from services.inference.gpu.model.alpha import edges, enlarge_alpha, guided_filter
from services.inference.gpu.model.frames import resize
from tests.unit.inference.gpu.goldens import tensors


def _inside(frames: Tensor, radius: int) -> Tensor:
    """What lies further from the border than two boxes reach: nearer, the reference counts what lies outside."""
    return frames[..., 2 * radius : -2 * radius, 2 * radius : -2 * radius]


@pytest.mark.parametrize("case", ["grad", "mask"])
def test_edges_have_the_reference_values(case: str) -> None:
    golden = tensors("pipeline/alpha")
    ours = edges((golden[f"{case}.rgb_decoded"] + 1) / 2)
    wrong = (ours - golden[f"{case}.edges"]).abs() > 1e-4
    assert wrong.float().mean() < 0.001, "isolated pixels where a step of 1/255 is rounded the other way"


@pytest.mark.parametrize("case", ["grad", "mask"])
def test_the_guided_filter_has_the_reference_values_inside(case: str) -> None:
    golden = tensors("pipeline/alpha")
    grey = ((golden[f"{case}.rgb_decoded"] + 1) / 2).mean(1, keepdim=True)
    ours = guided_filter(grey, resize(golden[f"{case}.alpha"], *grey.shape[-2:]), 2)
    torch.testing.assert_close(_inside(ours, 2), _inside(golden[f"{case}.guided_r2"], 2), atol=1e-4, rtol=0)


@pytest.mark.parametrize(("case", "radius"), [("grad", 3), ("mask", 2)])
def test_transparency_has_the_reference_values_inside(case: str, radius: int) -> None:
    golden = tensors("pipeline/alpha")
    ours = enlarge_alpha(golden[f"{case}.alpha"], golden[f"{case}.rgb_decoded"])
    wrong = (_inside(ours, radius) - _inside(golden[f"{case}.alpha_out"], radius)).abs() > 1e-4
    assert wrong.float().mean() < 0.002, "isolated pixels at thresholds"


@pytest.mark.parametrize("alpha", [1.0, 0.5, 0.0])
def test_even_transparency_stays_even_up_to_the_border(alpha: float) -> None:
    torch.manual_seed(0)
    enlarged = enlarge_alpha(torch.full((2, 1, 11, 17), alpha), torch.rand(2, 3, 22, 34) * 2 - 1)
    torch.testing.assert_close(enlarged, torch.full((2, 1, 22, 34), alpha), atol=1e-4, rtol=0)


def test_a_flat_picture_gives_numbers() -> None:
    mask = (torch.rand(1, 1, 12, 12) > 0.5).float()
    for shade in (-1.0, 0.3, 1.0):
        enlarged = enlarge_alpha(mask, torch.full((1, 3, 24, 24), shade))
        assert enlarged.isfinite().all()


def test_frames_do_not_influence_each_other() -> None:
    torch.manual_seed(0)
    alpha = torch.cat([(torch.rand(1, 1, 10, 12) > 0.5).float(), torch.rand(2, 1, 10, 12)])
    restored = torch.rand(3, 3, 20, 24) * 2 - 1
    together = enlarge_alpha(alpha, restored)
    assert torch.cat([enlarge_alpha(alpha[i : i + 1], restored[i : i + 1]) for i in range(3)]).equal(together)
    assert together.shape == (3, 1, 20, 24)
