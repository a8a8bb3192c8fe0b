import pytest
import torch

from services.inference.gpu.model.rope import axis_frequencies, rotate, text_turns, video_turns
from tests.unit.inference.gpu.goldens import tensors


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return tensors("dit/rope")


def test_frequencies_come_from_the_formula(golden: dict[str, torch.Tensor]) -> None:
    torch.testing.assert_close(axis_frequencies(128), golden["3b.freqs"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_queries_turn_as_in_the_reference(golden: dict[str, torch.Tensor], case: int) -> None:
    name = f"win{case}"
    cuts = [[(0, int(length))] for length in golden[f"{name}.shape"]]
    text_tokens = int(golden[f"{name}.text_len"])
    video = rotate(golden[f"{name}.q"].clone(), video_turns(cuts, text_tokens, 128, 128))
    torch.testing.assert_close(video, golden[f"{name}.3b.q_rot"], rtol=1e-5, atol=1e-5)
    text = rotate(golden[f"{name}.text_q"].clone(), text_turns(text_tokens, 128, 128))
    torch.testing.assert_close(text, golden[f"{name}.3b.text_q_rot"], rtol=1e-5, atol=1e-5)


def test_positions_restart_in_every_window() -> None:
    cuts = [[(0, 2), (2, 4)], [(0, 3), (3, 6)], [(0, 4), (4, 5)]]
    turns = video_turns(cuts, 7, 32, 32).view(4, 6, 5, 16)
    assert turns[2:, 3:, 4:].equal(turns[:2, :3, :1])


def test_half_precision_is_rotated_in_full_precision() -> None:
    turns = video_turns([[(0, 3)], [(0, 4)], [(0, 5)]], 400, 128, 128)
    x = torch.randn(60, 2, 128)
    exact = rotate(x.bfloat16().float(), turns)
    assert rotate(x.bfloat16(), turns).equal(exact.bfloat16())
