"""Triton's passes over tokens against the same in PyTorch."""

import pytest
import torch

from tests.unit.inference.gpu.model.fast.kernel_device import DEVICE, TYPES, assert_close
from tests.unit.inference.gpu.model.fast.reference import ReferenceTokenOps

from services.inference.gpu.model.fast.token_kernels import TritonTokenOps  # isort: skip

MINE, REFERENCE = TritonTokenOps(), ReferenceTokenOps()


def random(*shape, dtype=torch.float32):
    return torch.randn(shape, device=DEVICE).to(dtype)


@TYPES
@pytest.mark.parametrize("width", [64, 192])
def test_norm_and_modulation_differ_between_video_and_text(dtype, width):
    x, shift, scale = random(9, width, dtype=dtype), random(2, width), random(2, width)
    assert_close(MINE.enter(x, shift, scale, 6, 1e-5), REFERENCE.enter(x, shift, scale, 6, 1e-5))


@TYPES
def test_gated_outputs_are_added_before_the_next_norm(dtype):
    x, y = random(9, 192, dtype=dtype), random(9, 192, dtype=dtype)
    gate, shift, scale = (random(2, 192) for _ in range(3))
    copy = x.clone()
    assert_close(MINE.join(x, y, gate, shift, scale, 6, 1e-5), REFERENCE.join(copy, y, gate, shift, scale, 6, 1e-5))
    assert_close(x, copy)


@TYPES
@pytest.mark.parametrize(("heads", "head"), [(6, 32), (5, 128), (2, 48)])
def test_queries_and_keys_are_normed_and_turned_on_their_way_into_windows(dtype, heads, head):
    qkv, norms = random(11, 3 * heads * head, dtype=dtype), random(2, 2, head)
    sources = torch.randint(0, 11, (20,), dtype=torch.int32, device=DEVICE)
    angles = random(11, head // 2)
    turns = torch.stack([angles.cos(), angles.sin()], -1)
    mine, expected = (ops.pack(qkv, norms, sources, turns, heads, 8, 1e-5) for ops in (MINE, REFERENCE))
    assert_close(mine, expected)
    assert torch.equal(mine[2], expected[2])


@TYPES
def test_the_gate_of_the_mlp_is_activated_in_fp32(dtype):
    gate, up = random(7, 999, dtype=dtype), random(7, 999, dtype=dtype)
    expected = REFERENCE.gated(gate.clone(), up)
    assert_close(MINE.gated(gate, up), expected)
