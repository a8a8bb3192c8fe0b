import pytest
import torch

from services.inference.gpu.model.colour.wavelet import transfer_wavelet
from tests.unit.inference.gpu.goldens import tensors


@pytest.mark.parametrize("size", ["small", "large"])
def test_wavelet_transfer_gives_the_reference_values(size: str) -> None:
    golden = tensors("pipeline/colour")
    ours = transfer_wavelet(golden[f"{size}.content"], golden[f"{size}.style"])
    torch.testing.assert_close(ours, golden[f"{size}.wavelet"], atol=1e-5, rtol=0)


def test_a_colour_cast_goes_and_detail_stays() -> None:
    source = torch.rand(1, 3, 64, 64) * 0.6 - 0.3
    cast = source + torch.tensor([0.2, -0.1, 0.05])[None, :, None, None]
    torch.testing.assert_close(transfer_wavelet(cast, source), source, atol=1e-5, rtol=0)


def test_frames_do_not_influence_each_other() -> None:
    restored, source = torch.rand(2, 3, 3, 40, 48) * 2 - 1
    together = transfer_wavelet(restored, source)
    assert torch.cat([transfer_wavelet(restored[i : i + 1], source[i : i + 1]) for i in range(3)]).equal(together)
