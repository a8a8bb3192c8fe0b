"""Triton's passes over frames against the same in PyTorch."""

import pytest
import torch

from tests.unit.inference.gpu.model.fast.kernel_device import DEVICE, TYPES, assert_close
from tests.unit.inference.gpu.model.fast.reference import ReferenceFrameOps

from services.inference.gpu.model.fast.frame_kernels import TritonFrameOps  # isort: skip

MINE, REFERENCE = TritonFrameOps(), ReferenceFrameOps()
SHAPES = pytest.mark.parametrize("shape", [(3, 5, 7, 8), (1, 2, 1, 12), (2, 33, 70, 128), (2, 20, 23, 512)], ids=str)


def random(*shape, dtype=torch.float32, mean=0.0):
    return (torch.randn(shape, device=DEVICE) + mean).to(dtype)


@SHAPES
@TYPES
@pytest.mark.parametrize("pending", [True, False], ids=["bias-pending", "bias-added"])
def test_a_group_norms_scale_and_shift_come_from_the_whole_frame(shape, dtype, pending):
    x = random(*shape, dtype=dtype, mean=30.0)
    weight, bias, waiting = (random(shape[-1], dtype=dtype) for _ in range(3))
    args = weight, bias, waiting if pending else None, 4, 1e-6
    mine, expected = MINE.fold(MINE.measure(x), *args), REFERENCE.fold(REFERENCE.measure(x), *args)
    assert_close(mine[0], expected[0])
    apply = torch.empty_like(x, dtype=torch.float32), torch.empty_like(x, dtype=torch.float32)
    MINE.normalise(x.float(), mine, apply[0], None, silu=False)
    REFERENCE.normalise(x.float(), expected, apply[1], None, silu=False)
    assert_close(*apply)


@SHAPES
@TYPES
@pytest.mark.parametrize("pending", [True, False], ids=["bias-pending", "bias-added"])
def test_parts_of_a_frame_give_the_scale_and_shift_of_the_whole(shape, dtype, pending):
    x = random(*shape, dtype=dtype, mean=30.0)
    weight, bias, waiting = (random(shape[-1], dtype=dtype) for _ in range(3))
    waiting = waiting if pending else None
    heights = [shape[1] - shape[1] // 2, shape[1] // 2]
    parts = [part.contiguous() for part in x.split(heights, dim=1)]
    weights = torch.tensor(heights, device=DEVICE) / shape[1]
    expected = REFERENCE.fold(REFERENCE.measure(x), weight, bias, waiting, 4, 1e-6)
    for measuring, uniting in ((MINE, REFERENCE), (REFERENCE, MINE)):
        moments = torch.stack([measuring.summarise(measuring.measure(part), waiting, 4) for part in parts])
        for mine, whole in zip(uniting.unite(moments, weights, weight, bias, waiting, 1e-6), expected, strict=True):
            assert_close(mine, whole)


@TYPES
def test_normed_frames_go_into_longer_frames_and_nothing_beside(dtype):
    x, affine = random(2, 6, 9, 16, dtype=dtype), random(2, 2, 16)
    mine, expected, my_tail, tail = (torch.full((3, 8, 9, 16), 7.0, dtype=dtype, device=DEVICE) for _ in range(4))
    MINE.normalise(x, affine, mine[1:, 1:7], my_tail[1:, 2:8], silu=True)
    REFERENCE.normalise(x, affine, expected[1:, 1:7], tail[1:, 2:8], silu=True)
    assert_close(mine, expected)
    assert_close(my_tail, tail)
    assert (mine[0] == 7).all()
    assert (mine[:, [0, 7]] == 7).all()
    assert (my_tail[:, :2] == 7).all()


@SHAPES
@TYPES
@pytest.mark.parametrize("silu", [True, False], ids=["silu", "plain"])
def test_normed_frames_stand_behind_the_past_and_the_last_two_in_the_tail(shape, dtype, silu):
    x, affine = random(*shape, dtype=dtype), random(2, shape[0], shape[3])
    results = []
    for ops in (MINE, REFERENCE):
        buffer = torch.full((shape[0] + 2, *shape[1:]), float("nan"), dtype=dtype, device=DEVICE)
        tail = torch.full((2, *shape[1:]), float("nan"), dtype=dtype, device=DEVICE) if shape[0] > 1 else None
        ops.normalise(x, affine, buffer[2:], tail, silu=silu)
        assert buffer[:2].isnan().all()
        results.append((buffer[2:], tail))
    assert_close(results[0][0], results[1][0])
    if shape[0] > 1:
        assert_close(results[0][1], results[1][1])


@TYPES
def test_frames_are_normed_in_place(dtype):
    x, affine = random(4, 9, 11, 128, dtype=dtype), random(2, 4, 128)
    expected = torch.empty_like(x)
    REFERENCE.normalise(x, affine, expected, None, silu=True)
    MINE.normalise(x, affine, x, None, silu=True)
    assert_close(x, expected)


@SHAPES
@TYPES
@pytest.mark.parametrize("skip", [True, False], ids=["residual", "bias-only"])
def test_bias_and_residual_are_added_in_place_and_measured(shape, dtype, skip):
    y, bias = random(*shape, dtype=dtype, mean=10.0), random(shape[-1], dtype=dtype)
    residual = random(*shape, dtype=dtype) if skip else None
    copy = y.clone()
    mine, expected = MINE.finish(y, bias, residual, y, measure=True), REFERENCE.finish(copy, bias, residual, copy, measure=True)
    assert_close(y, copy)
    ones = torch.ones(shape[-1], device=DEVICE), torch.zeros(shape[-1], device=DEVICE), None, 4, 1e-3
    assert_close(MINE.fold(mine, *ones)[0], REFERENCE.fold(expected, *ones)[0])


@TYPES
def test_frames_are_written_into_longer_rows_and_nothing_beside(dtype):
    y, bias, skip = random(2, 6, 9, 16, dtype=dtype), random(16), random(2, 6, 9, 16, dtype=dtype)
    mine, expected = (torch.full((3, 7, 10, 16), 7.0, dtype=dtype, device=DEVICE) for _ in range(2))
    assert MINE.finish(y, bias, skip, mine[1:, :6, :9], measure=False) is None
    REFERENCE.finish(y, bias, skip, expected[1:, :6, :9], measure=False)
    assert_close(mine, expected)
    assert (mine[0] == 7).all()
    assert (mine[:, 6] == 7).all()
    assert (mine[:, :, 9] == 7).all()


@TYPES
@pytest.mark.parametrize("doubled", [1, 2], ids=["space", "space-and-time"])
@pytest.mark.parametrize("size", [(1, 1), (3, 4), (40, 33)], ids=str)
@pytest.mark.parametrize("borders", [(True, True), (False, True), (False, False)], ids=str)
def test_sub_positions_are_spread_with_border_biases_and_measured(dtype, doubled, size, borders):
    height, width, channels, frames = *size, 16, 3
    bias = random(doubled, 2, 2, 2, 2, channels)
    phases = [random(frames, height + 1, width + 1, doubled * channels, dtype=dtype) for _ in range(4)]
    folded, written = [], []
    for ops in (MINE, REFERENCE):
        out = torch.full((frames * doubled, 2 * height, 2 * width, channels), float("nan"), dtype=dtype, device=DEVICE)
        partials = ops.allot(out, 4)
        for index, phase in enumerate(phases):
            ops.spread(phase, index // 2, index % 2, bias, out, partials, border=borders[index // 2])
        written.append(out)
        ones = torch.ones(channels, device=DEVICE), torch.zeros(channels, device=DEVICE), None, 4, 1e-3
        folded.append(ops.fold(partials, *ones))
    assert_close(*written)
    assert_close(folded[0][0], folded[1][0])


@TYPES
@pytest.mark.parametrize("size", [(1, 1), (3, 5), (20, 33)], ids=str)
def test_every_position_gives_its_neighbours_their_share(dtype, size):
    products, bias = random(2, *size, 32, dtype=dtype), random(3)
    assert_close(MINE.collect(products, bias), REFERENCE.collect(products, bias))


@TYPES
@pytest.mark.parametrize("length", [1, 100, 5000])
def test_rows_of_scores_become_weights_that_sum_to_one(dtype, length):
    scores = random(3, length) * 20
    mine, expected = (torch.empty_like(scores, dtype=dtype) for _ in range(2))
    MINE.softmax(scores, 0.3, mine)
    REFERENCE.softmax(scores, 0.3, expected)
    assert_close(mine, expected)
