import pytest
import torch

from services.common.colours import COLOURS
from services.inference.gpu.model.colour.transfer import TRANSFERS, ColourTransfer


def test_every_mode_that_people_can_name_is_there() -> None:
    assert set(TRANSFERS) == set(COLOURS) - {"none"}


@pytest.mark.parametrize("mode", TRANSFERS)
def test_calls_of_any_size_give_the_same_frames(mode: str) -> None:
    torch.manual_seed(0)
    restored, source = torch.rand(2, 5, 3, 40, 48) * 2 - 1
    whole = ColourTransfer(mode)(restored, source)
    for sizes in ([1, 1, 1, 1, 1], [2, 3], [4, 0, 1]):
        by_parts = ColourTransfer(mode)
        parts = [by_parts(a, b) for a, b in zip(restored.split(sizes), source.split(sizes), strict=True)]
        assert torch.cat(parts).equal(whole), sizes


@pytest.mark.parametrize("mode", ["wavelet", "adain", "lab"])
def test_frames_do_not_influence_each_other(mode: str) -> None:
    torch.manual_seed(0)
    restored, source = torch.rand(2, 3, 3, 40, 48) * 2 - 1
    together = ColourTransfer(mode)(restored, source)
    assert ColourTransfer(mode)(restored[2:], source[2:]).equal(together[2:])
