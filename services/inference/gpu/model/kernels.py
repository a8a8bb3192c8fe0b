"""The one place that chooses how attention, norms and convolutions are computed.

FlashAttention where it is installed, else PyTorch's variable-length attention, else scaled_dot_product_attention; apex's
RMS norm where it is installed, else PyTorch's. Nothing here is required besides PyTorch. The choice is made once, when a
model is loaded, and is part of a worker's fingerprint, because kernels differ in rounding.
"""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module, metadata
from itertools import accumulate, chain
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from services.common.errors import InvalidOption
from services.inference.gpu.parallel.frames import RowShare


class Run(NamedTuple):
    """Consecutive attention problems of one size."""

    problems: int
    """How many."""

    length: int
    """Rows of each."""


class Packing:
    """How rows divide into independent attention problems."""

    def __init__(self, runs: tuple[Run, ...], device: torch.device) -> None:
        lengths = chain.from_iterable([run.length] * run.problems for run in runs)
        self.runs = runs
        self.longest = max(run.length for run in runs)
        self.borders = torch.tensor([0, *accumulate(lengths)], dtype=torch.int32, device=device)
        """(problems + 1,) running sums of the lengths, as variable-length kernels want them."""


Attend = Callable[[Tensor, Tensor, Tensor, Packing], Tensor]
"""(rows, heads, head width) queries, keys and values to outputs of the same shape; problems don't see each other."""

RmsNorm = Callable[[Tensor, Tensor | None, float], Tensor]
"""x, weight of the last axis, eps. Statistics in fp32; the result is a fresh tensor."""

Strides = tuple[int, int]
"""Of a convolution, in time and in space."""

Padding = tuple[int, int]
"""Rows and columns of zeros on each side of a frame."""

ConvolveTime = Callable[[Tensor, Tensor, Tensor, Tensor, Strides, Padding], Tensor]
"""Frames that went before, x (T, C, H, W), weight (O, C, 3, kh, kw), bias, strides, zero padding in space."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kernels:
    """The functions that a model computes with."""

    attend: Attend
    rms_norm: RmsNorm
    convolve_time: ConvolveTime
    report: dict[str, str]
    """Which one was taken for each purpose."""
    fused: bool = False
    """Whether the passes between matrix products and convolutions are those of the package ``fast``."""


def choose_kernels(device: torch.device, dtype: torch.dtype, *, fused: bool | None = None) -> Kernels:
    """The fastest installed kernels for a device and a compute type.

    ``fused`` False keeps to the plain path, which is what everything else is compared with; None takes what there is.
    """
    fused_name = _fused_version(device) if fused is not False else None
    if fused and fused_name is None:
        raise InvalidOption("fused kernels need a CUDA GPU and Triton", field="fused")
    attention_name, attend = _choose_attention(device, dtype)
    norm_name, rms_norm = _choose_rms_norm(device)
    convolution_name, convolve_time = _choose_convolution(device)
    passes = "stacked" if convolve_time is convolve_time_stacked else "plain"
    report = {"attention": attention_name, "rms_norm": norm_name, "group_norm": "torch", "convolution": convolution_name}
    report |= {"passes": passes}
    if device.type == "cuda" and fused_name is None:
        report |= {"convolution": f"{convolution_name} by {_cudnn()}"}
    if fused_name is not None:
        convolution_name = f"{convolution_name} by {_cudnn()}, upsamplers merged"
        report |= {"rms_norm": fused_name, "group_norm": fused_name, "convolution": convolution_name, "passes": "fused"}
    return Kernels(attend=attend, rms_norm=rms_norm, convolve_time=convolve_time, fused=fused_name is not None, report=report)


def _cudnn() -> str:
    return f"cuDNN {torch.backends.cudnn.version()}"  # type: ignore[no-untyped-call]


def _fused_version(device: torch.device) -> str | None:
    if device.type != "cuda" or torch.version.hip is not None or _installed("triton", "jit") is None:
        return None
    return f"triton {_version('triton')}"


def _choose_attention(device: torch.device, dtype: torch.dtype) -> tuple[str, Attend]:
    if device.type == "cuda" and dtype in (torch.bfloat16, torch.float16):
        for package, module, function in (
            ("flash-attn-3", "flash_attn_interface", "flash_attn_varlen_func"),
            ("flash-attn", "flash_attn", "flash_attn_varlen_func"),
            ("torch", "torch.nn.attention.varlen", "varlen_attn"),
        ):
            # On Hopper cuDNN takes two thirds of the time of the FlashAttention 2 inside PyTorch.
            if package == "torch" and torch.cuda.get_device_capability(device) >= (9, 0):
                return f"{_cudnn()} through torch {torch.__version__}", attend_cudnn
            kernel = _installed(module, function)
            if kernel is not None:
                return f"{module}.{function} {_version(package)}", _varlen(kernel)
    return f"torch.scaled_dot_product_attention {torch.__version__}", attend_sdpa


def _choose_rms_norm(device: torch.device) -> tuple[str, RmsNorm]:
    module = "apex.normalization.fused_layer_norm"
    plain, affine = _installed(module, "fused_rms_norm"), _installed(module, "fused_rms_norm_affine")
    if device.type != "cuda" or plain is None or affine is None:
        return "torch", rms_norm

    def rms_norm_apex(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
        shape = x.shape[-1:]
        y: Tensor = plain(x, shape, eps) if weight is None else affine(x, weight.to(x.dtype), shape, eps)
        return y

    return f"apex {_version('apex')}", rms_norm_apex


def _choose_convolution(device: torch.device) -> tuple[str, ConvolveTime]:
    # On CPU, oneDNN's 3-D convolution is up to ten times slower than its 2-D one where channels or frames are few.
    if device.type == "cpu":
        return "torch.conv2d over stacked frames", convolve_time_stacked
    return "torch.conv3d", convolve_time


def _installed(module: str, name: str) -> Callable[..., Any] | None:
    try:
        found: Callable[..., Any] | None = getattr(import_module(module), name, None)
    except ImportError:
        return None
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "of unknown version"


def _varlen(kernel: Callable[..., Any]) -> Attend:
    def attend_varlen(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
        borders, longest = packing.borders, packing.longest
        out = kernel(q, k, v, borders, borders, longest, longest)
        rows: Tensor = out[0] if isinstance(out, tuple) else out
        return rows

    return attend_varlen


def attend_sdpa(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    """Attention with one batched call for each run of equal lengths."""
    results, first = [], 0
    for run in packing.runs:
        rows = slice(first, first + run.problems * run.length)
        queries, keys, values = (x[rows].view(*run, *x.shape[1:]).transpose(1, 2) for x in (q, k, v))
        results.append(functional.scaled_dot_product_attention(queries, keys, values).transpose(1, 2).flatten(0, 1))
        first = rows.stop
    return results[0] if len(results) == 1 else torch.cat(results)


def attend_cudnn(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    """The same by cuDNN, or by FlashAttention where cuDNN doesn't take the shape."""
    with sdpa_kernel([SDPBackend.CUDNN_ATTENTION, SDPBackend.FLASH_ATTENTION], set_priority=True):
        return attend_sdpa(q, k, v, packing)


def rms_norm(x: Tensor, weight: Tensor | None, eps: float) -> Tensor:
    """x / sqrt(mean(x²) + eps) · weight over the last axis."""
    if x.device.type != "cpu":
        return functional.rms_norm(x, x.shape[-1:], weight if weight is None else weight.to(x.dtype), eps)
    # Two passes over memory instead of the five that PyTorch's own takes on CPU.
    mean_square: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32).square_().div_(x.shape[-1])
    y = x * mean_square.add_(eps).rsqrt_()
    return (y if weight is None else y.mul_(weight)).to(x.dtype)


def group_norm_silu(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, *, silu: bool = True, share: RowShare | None = None
) -> Tensor:
    """Group norm of each frame, then SiLU.

    PyTorch's own group norm loses four digits on large channels-last frames on CPU and transposes them on CUDA. Here means
    are pairwise sums in fp32, and the result is rounded once.

    Args:
        x: (T, C, H, W), best channels last.
        silu: False leaves the activation out.
        share: the rows of frames that ``x`` is; statistics are those of whole frames.

    Returns:
        (T, C, H, W), a fresh tensor, channels last.
    """
    frames, channels, height, width = x.shape

    def of_groups(moments: Tensor) -> Tensor:
        return moments.view(frames, groups, -1).mean(2)

    def of_channels(moments: Tensor) -> Tensor:
        return moments.repeat_interleave(channels // groups, 1)[:, None]

    rows = x.permute(0, 2, 3, 1).reshape(frames, height * width, channels).float()
    own_mean = of_groups(rows.mean(1))
    centred = rows - of_channels(own_mean)
    own_variance = of_groups(centred.square().mean(1))
    mean, variance = (own_mean, own_variance) if share is None else share.unite(own_mean, own_variance)
    scale = torch.rsqrt(of_channels(variance) + eps) * weight.float()
    shift = torch.addcmul(bias.float(), of_channels(own_mean - mean), scale)
    y = torch.addcmul(shift, centred, scale, out=centred)
    if silu:
        y = functional.silu(y, inplace=True)
    return y.to(x.dtype).view(frames, height, width, channels).permute(0, 3, 1, 2)


def convolve_time(past: Tensor, x: Tensor, weight: Tensor, bias: Tensor, strides: Strides, padding: Padding) -> Tensor:
    """A 3-D convolution; ``past`` takes the place of padding in time."""
    frames = torch.cat([past, x]).transpose(0, 1).unsqueeze(0)
    y = functional.conv3d(frames, weight, bias, stride=(strides[0], strides[1], strides[1]), padding=(0, *padding))
    return y.squeeze(0).transpose(0, 1)


def convolve_time_stacked(past: Tensor, x: Tensor, weight: Tensor, bias: Tensor, strides: Strides, padding: Padding) -> Tensor:
    """The same as a 2-D convolution over frames stacked along their channels."""
    taps, channels = weight.shape[2], weight.shape[1]
    frames = [*past.permute(0, 2, 3, 1), *x.permute(0, 2, 3, 1)]
    firsts = range(0, len(frames) - taps + 1, strides[0])
    stacked = x.new_empty((len(firsts), *x.shape[2:], taps * channels))
    for rows, first in zip(stacked, firsts, strict=True):
        torch.cat(frames[first : first + taps], dim=-1, out=rows)
    flat = weight.transpose(1, 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    return functional.conv2d(stacked.permute(0, 3, 1, 2), flat, bias, stride=strides[1], padding=padding)
