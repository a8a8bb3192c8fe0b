import pytest
import torch

from services.inference.gpu.model.rope import axis_frequencies, local_positions, rotate, text_turns, video_turns
from tests.unit.inference.gpu.goldens import tensors


@pytest.fixture(scope="module")
def golden() -> dict[str, torch.Tensor]:
    return tensors("dit/rope")


@pytest.mark.parametrize(("rules", "rope_width"), [("3b", 128), ("7b", 64)])
def test_frequencies_come_from_the_formula(golden: dict[str, torch.Tensor], rules: str, rope_width: int) -> None:
    torch.testing.assert_close(axis_frequencies(rope_width, pixel=rules == "7b"), golden[f"{rules}.freqs"], rtol=1e-6, atol=0)


@pytest.mark.parametrize("case", [0, 1, 2])
def test_queries_turn_as_in_the_reference(golden: dict[str, torch.Tensor], case: int) -> None:
    name = f"win{case}"
    cuts = [[(0, int(length))] for length in golden[f"{name}.shape"]]
    text_tokens = int(golden[f"{name}.text_len"])
    video = rotate(golden[f"{name}.q"].clone(), video_turns(cuts, text_tokens, 128, 128, pixel=False))
    torch.testing.assert_close(video, golden[f"{name}.3b.q_rot"], rtol=1e-5, atol=1e-5)
    text = rotate(golden[f"{name}.text_q"].clone(), text_turns(text_tokens, 128, 128, pixel=False))
    torch.testing.assert_close(text, golden[f"{name}.3b.text_q_rot"], rtol=1e-5, atol=1e-5)
    pixels = rotate(golden[f"{name}.q"].clone(), video_turns(cuts, text_tokens, 64, 128, pixel=True))
    torch.testing.assert_close(pixels, golden[f"{name}.7b.q_rot"], rtol=1e-5, atol=1e-5)


def test_text_is_not_turned_where_positions_are_those_of_pixels() -> None:
    x = torch.randn(5, 2, 128)
    assert rotate(x.clone(), text_turns(5, 64, 128, pixel=True)).equal(x)


def test_a_clipped_window_spans_the_same_positions_as_a_full_one() -> None:
    positions = local_positions([(0, 1), (1, 4), (4, 6)], pixel=True)
    assert positions.tolist() == [-1, -1, 0, 1, -1, 1]


def test_positions_restart_in_every_window() -> None:
    cuts = [[(0, 2), (2, 4)], [(0, 3), (3, 6)], [(0, 4), (4, 5)]]
    turns = video_turns(cuts, 7, 32, 32, pixel=False).view(4, 6, 5, 16)
    assert turns[2:, 3:, 4:].equal(turns[:2, :3, :1])


def test_half_precision_is_rotated_in_full_precision() -> None:
    turns = video_turns([[(0, 3)], [(0, 4)], [(0, 5)]], 400, 128, 128, pixel=False)
    x = torch.randn(60, 2, 128)
    exact = rotate(x.bfloat16().float(), turns)
    assert rotate(x.bfloat16(), turns).equal(exact.bfloat16())
