import pytest
import torch
from torch.nn import functional

from services.common.errors import InvalidOption
from services.inference.gpu.model.kernels import (
    Packing,
    Run,
    attend_sdpa,
    choose_kernels,
    convolve_time,
    convolve_time_stacked,
    group_norm_silu,
    rms_norm,
)
from tests.unit.inference.gpu.goldens import CPU


def test_the_choice_is_reported_in_plain_text() -> None:
    report = choose_kernels(CPU, torch.float32).report
    assert set(report) == {"attention", "rms_norm", "group_norm", "convolution", "passes"}
    assert all(isinstance(name, str) and name for name in report.values())
    assert report["attention"].startswith("torch.scaled_dot_product_attention")


def test_attention_keeps_problems_apart() -> None:
    packing = Packing((Run(3, 4), Run(1, 7), Run(2, 9)), CPU)
    q, k, v = torch.randn(3, 37, 2, 8)
    out = attend_sdpa(q, k, v, packing)
    for first, end in zip(packing.borders[:-1], packing.borders[1:], strict=True):
        rows = slice(int(first), int(end))
        scores = torch.einsum("qhd,khd->hqk", q[rows], k[rows]) / 8**0.5
        expected = torch.einsum("hqk,khd->qhd", scores.softmax(-1), v[rows])
        torch.testing.assert_close(out[rows], expected, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rms_norm_takes_its_statistics_in_fp32(dtype: torch.dtype, weighted: bool) -> None:
    x, weight = torch.randn(50, 192, dtype=dtype) * 30, torch.rand(192, dtype=dtype) if weighted else None
    exact = functional.rms_norm(x.double(), (192,), None if weight is None else weight.double(), 1e-5)
    normed = rms_norm(x, weight, 1e-5)
    assert normed.dtype == dtype
    torch.testing.assert_close(
        normed.double(), exact, atol=1e-6 if dtype == torch.float32 else 0, rtol=1e-6 if dtype == torch.float32 else 1e-2
    )


@pytest.mark.parametrize("groups", [1, 8])
def test_group_norm_stays_exact_on_large_frames_far_from_zero(groups: int) -> None:
    x = (torch.randn(2, 32, 160, 200) + 20).contiguous(memory_format=torch.channels_last)
    weight, bias = torch.rand(32) + 0.5, torch.randn(32)
    exact = functional.silu(functional.group_norm(x.double(), groups, weight.double(), bias.double(), 1e-6))
    normed = group_norm_silu(x, weight, bias, groups, 1e-6)
    assert normed.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(normed.double(), exact, atol=2e-5, rtol=1e-5)


def test_group_norm_of_a_flat_frame_is_its_bias() -> None:
    x = torch.full((1, 4, 64, 64), 1234.5)
    normed = group_norm_silu(x, torch.ones(4), torch.arange(4.0), 2, 1e-6, silu=False)
    torch.testing.assert_close(normed, torch.arange(4.0)[None, :, None, None].expand_as(x))


@pytest.mark.parametrize(
    ("frames", "past", "strides", "padding"),
    [(1, 2, (1, 1), (1, 1)), (5, 2, (1, 1), (0, 1)), (5, 2, (2, 2), (0, 0)), (4, 1, (2, 2), (0, 0))],
)
def test_stacking_frames_gives_what_a_3d_convolution_gives(
    frames: int, past: int, strides: tuple[int, int], padding: tuple[int, int]
) -> None:
    before, x = torch.randn(past, 6, 9, 11), torch.randn(frames, 6, 9, 11)
    weight, bias = torch.randn(5, 6, 3, 3, 3), torch.randn(5)
    plain = convolve_time(before, x, weight, bias, strides, padding)
    torch.testing.assert_close(convolve_time_stacked(before, x, weight, bias, strides, padding), plain, atol=2e-5, rtol=1e-5)


def test_without_a_gpu_the_plain_path_is_taken_and_asking_for_another_is_an_error() -> None:
    assert not choose_kernels(CPU, torch.float32).fused
    with pytest.raises(InvalidOption, match="CUDA"):
        choose_kernels(CPU, torch.float32, fused=True)
