from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from services.inference.gpu.model.colour.spaces import hsv_to_rgb, rgb_to_hsv
from services.inference.gpu.model.colour.statistics import (
    transfer_adain,
    transfer_hsv,
    transfer_lab,
    transfer_wavelet_adaptive,
)
from tests.unit.inference.gpu.goldens import tensors
from tests.unit.inference.gpu.model.colour.golden import assert_close_but_for_ranks

BY_RANKS = {"lab": transfer_lab, "hsv": transfer_hsv, "wavelet_adaptive": transfer_wavelet_adaptive}


@pytest.mark.parametrize("size", ["small", "large"])
def test_adain_gives_the_reference_values(size: str) -> None:
    golden = tensors("pipeline/colour")
    ours = transfer_adain(golden[f"{size}.content"], golden[f"{size}.style"])
    torch.testing.assert_close(ours, golden[f"{size}.adain"], atol=1e-5, rtol=0)
    torch.testing.assert_close(ours, golden[f"{size}.official_adain"], atol=1e-5, rtol=0)


@pytest.mark.parametrize("size", ["small", "large"])
@pytest.mark.parametrize("mode", BY_RANKS)
def test_frames_together_give_the_reference_values(mode: str, size: str) -> None:
    golden = tensors("pipeline/colour")
    ours = BY_RANKS[mode](golden[f"{size}.content_soft"], golden[f"{size}.style_soft"])
    assert_close_but_for_ranks(ours, golden[f"{size}.{mode}"])


@pytest.mark.parametrize("transfer", [transfer_adain, transfer_lab])
def test_a_colour_cast_goes(transfer: Callable[[Tensor, Tensor], Tensor]) -> None:
    torch.manual_seed(0)
    source = torch.rand(1, 3, 64, 64) * 0.6 - 0.3
    cast = source + torch.tensor([0.2, -0.1, 0.05])[None, :, None, None]
    before, after = (cast - source).abs().mean(), (transfer(cast, source) - source).abs().mean()
    assert after < 0.05 * before


def test_too_much_colour_goes_by_hue() -> None:
    torch.manual_seed(0)
    source = torch.rand(1, 3, 64, 64) * 0.6 - 0.3
    hsv = rgb_to_hsv((source + 1) / 2)
    hsv[:, 1] *= 1.5
    vivid = hsv_to_rgb(hsv) * 2 - 1
    before, after = (vivid - source).abs().mean(), (transfer_hsv(vivid, source) - source).abs().mean()
    assert after < 0.05 * before


@pytest.mark.parametrize("mode", BY_RANKS)
def test_flat_pictures_come_out_as_numbers(mode: str) -> None:
    for ours in (-1.0, 0.0, 1.0):
        result = BY_RANKS[mode](torch.full((1, 3, 20, 20), ours), torch.full((1, 3, 20, 20), -1.0))
        assert result.isfinite().all()
