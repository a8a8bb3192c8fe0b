import pytest
import torch

from services.inference.gpu.model.batches import batch_spans, cross_fade, fade_weights
from tests.unit.inference.gpu.goldens import tensors

BLEND = tensors("pipeline/blend")


@pytest.mark.parametrize(
    ("frames", "size", "overlap", "spans"),
    [
        (9, 5, 0, [(0, 5), (5, 9)]),
        (14, 9, 3, [(0, 9), (6, 14)]),
        (10, 5, 1, [(0, 5), (4, 9), (8, 10)]),
        (9, 5, 1, [(0, 5), (4, 9)]),
        (4, 9, 4, [(0, 4)]),
        (2, 9, 4, [(0, 2)]),
        (6, 3, 3, [(0, 3), (3, 6)]),
    ],
)
def test_batches_overlap_and_each_brings_something_new(
    frames: int, size: int, overlap: int, spans: list[tuple[int, int]]
) -> None:
    assert batch_spans(frames, size, overlap) == spans


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 8, 16])
def test_fading_is_that_of_the_port(count: int) -> None:
    golden = {key.split(".")[1]: value for key, value in BLEND.items() if key.startswith(f"v{count}.")}
    torch.testing.assert_close(fade_weights(count), golden["w_prev"], atol=1e-5, rtol=0)
    torch.testing.assert_close(cross_fade(golden["prev"], golden["cur"]), golden["out"], atol=1e-5, rtol=0)
