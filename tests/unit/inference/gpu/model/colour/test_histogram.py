import pytest
import torch

from services.inference.gpu.model.colour.histogram import match_histogram
from tests.unit.inference.gpu.goldens import tensors


@pytest.mark.parametrize("counts", ["same", "other"])
def test_matching_gives_the_reference_values(counts: str) -> None:
    golden = tensors("pipeline/colour")
    ours = match_histogram(golden["hist.src"], golden[f"hist.ref_{counts}"])
    torch.testing.assert_close(ours, golden[f"hist.out_{counts}"], atol=0, rtol=0)


def test_order_is_kept_and_values_are_the_references() -> None:
    values = torch.tensor([[3.0, 1.0], [2.0, 9.0]])
    assert match_histogram(values, torch.tensor([10.0, 40.0, 30.0, 20.0])).tolist() == [[30.0, 10.0], [20.0, 40.0]]


def test_equal_values_are_ranked_by_their_position() -> None:
    assert match_histogram(torch.zeros(4), torch.arange(4.0)).tolist() == [0.0, 1.0, 2.0, 3.0]
