"""An upsampler's two convolutions as one: what each output sub-position sees of the small frames.

A 1x1x1 convolution, the move of channels to rows, columns and frames, and a 3x3x3 convolution are linear together. Along an axis
of factor two an output sub-position sees two input positions only, so eight taps stand for twenty-seven, and the widest
intermediate frames are never written. Source of the idea and its borders: the weights are composed in fp32 and rounded once.
"""

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Merged:
    """One upsampler for one place in a stream."""

    weights: tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]
    """By row and column sub-position: (Z · C, C, taps in time, 2, 2), the channels of later frames after those of earlier ones.
    Without the time axis for a stream's first frame."""

    bias: Tensor
    """(Z, 2, 2, 2, 2, C) fp32: time, row and column sub-position, whether on the first or last row, likewise column."""


def merge(upscale: Tensor, upscale_bias: Tensor, weight: Tensor, bias: Tensor, *, place: str, dtype: torch.dtype) -> Merged:
    """Compose the two convolutions.

    Args:
        upscale: (4 · Z · C, C, 1, 1, 1), its channels ordered (row, column, frame, channel).
        upscale_bias: (4 · Z · C,).
        weight: (C, C, 3, 3, 3).
        bias: (C,).
        place: ``first`` for a stream's first frame alone, which has one frame of output; ``second`` for the frames right after
            it, whose past is that one frame repeated; ``later`` for the rest.
        dtype: of the result; composed in fp32 at least.
    """
    channels = weight.shape[0]
    exact = torch.promote_types(weight.dtype, torch.float32)
    frames = upscale.shape[0] // (4 * channels)
    matrices = upscale.to(exact).view(2, 2, frames, channels, channels)
    offsets = upscale_bias.to(exact).view(2, 2, frames, channels)
    phases = 1 if place == "first" else frames
    taps = 1 if place == "first" else (2 if frames == 2 else 3)
    kernels = weight.new_zeros((2, 2, phases, channels, channels, taps, 2, 2), dtype=exact)
    biases = bias.to(exact).expand(phases, 2, 2, 2, 2, channels).clone()
    for x, y, z in product(range(2), range(2), range(phases)):
        for k, i, j in product(range(3), range(3), range(3)):
            (dh, row), (dw, column) = divmod(x + i - 1, 2), divmod(y + j - 1, 2)
            tap, half = _in_time(z, k, frames, place)
            product_with = weight[:, :, k, i, j].to(exact)
            # Rows x - 1 and x are seen, as two taps.
            kernels[x, y, z, :, :, tap, dh + 1 - x, dw + 1 - y] += product_with @ matrices[row, column, half]
            reached = product_with @ offsets[row, column, half]
            for on_row, on_column in product(range(2), range(2)):
                if not (on_row and dh != 0) and not (on_column and dw != 0):
                    biases[z, x, y, on_row, on_column] += reached
    weights = tuple(tuple(_laid_out(kernels[x, y], place).to(dtype) for y in range(2)) for x in range(2))
    return Merged(weights=weights, bias=biases.float() if dtype != torch.float64 else biases)  # type: ignore[arg-type]


def _in_time(z: int, k: int, frames: int, place: str) -> tuple[int, int]:
    """Tap k of output sub-frame z: which input frame it reaches, counted from the earliest, and which half of it."""
    if place == "first":
        return 0, 0
    if frames == 1:
        return k, 0
    back, half = divmod(z + k - 2, 2)
    # The first frame of a stream has one half only, which stands for both.
    return back + 1, 0 if place == "second" and back < 0 else half


def _laid_out(kernel: Tensor, place: str) -> Tensor:
    """(phases, C, C, taps, 2, 2) to a convolution's weight, channels innermost."""
    weight = kernel.flatten(0, 1)
    if place == "first":
        return weight.squeeze(2).contiguous(memory_format=torch.channels_last)
    return weight.contiguous(memory_format=torch.channels_last_3d)
