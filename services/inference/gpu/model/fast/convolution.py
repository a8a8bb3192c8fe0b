"""Convolutions over channels-innermost frames: weights laid out for use, padding in space only."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from services.inference.gpu.model.kernels import Padding
from services.inference.gpu.model.vae import Conv
from services.inference.gpu.parallel.frames import RowShare

_THIN = 8
"""Fewer channels than this leave tensor cores idle; taps in space stand in for them."""

_ALIGNED = 32
"""Channels are filled up to a multiple of this where taps become channels."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """A convolution's weights, laid out for use. Biases are left to the pass that follows."""

    moving: Tensor
    """(O, C, taps, kh, kw)."""

    still: Tensor
    """(O, C, kh, kw): all taps on one frame."""

    padding: int
    """Zeros around each frame."""

    pixels: str = ""
    """Taps in space turned into channels, because there are few others: ``in`` or ``out``."""

    @property
    def reach(self) -> int:
        """Rows beyond a frame that its input needs, unless they are zeros."""
        return int(self.padding > 0 or self.pixels == "out")


def lay_out(conv: Conv) -> Weights:
    """A convolution's weights for frames among others and for frames that stand for their past, too."""
    weight: Tensor = conv.weight
    pixels = ""
    if weight.shape[-1] == 3 and min(weight.shape[:2]) < _THIN:
        pixels = "in" if weight.shape[1] < weight.shape[0] else "out"
        weight = _taps_to_channels(weight, pixels)
    exact = torch.promote_types(weight.dtype, torch.float32)
    still = weight.sum(2, dtype=exact).to(weight.dtype)
    return Weights(
        moving=weight.contiguous(memory_format=torch.channels_last_3d),
        still=still.contiguous(memory_format=torch.channels_last),
        padding=weight.shape[-1] // 2,
        pixels=pixels,
    )


def _taps_to_channels(weight: Tensor, pixels: str) -> Tensor:
    """(O, C, taps, 3, 3) to (O, 9 · C, taps, 1, 1) or (9 · O, C, taps, 1, 1), filled up with zeros."""
    if pixels == "in":
        flat = weight.permute(0, 1, 3, 4, 2).flatten(1, 3)
        flat = functional.pad(flat, (0, 0, 0, -flat.shape[1] % _ALIGNED))
    else:
        flat = weight.permute(0, 3, 4, 1, 2).flatten(0, 2)
        flat = functional.pad(flat, (0, 0, 0, 0, 0, -flat.shape[0] % _ALIGNED))
    return flat[..., None, None]


def convolve(inputs: Tensor, weight: Tensor, *, padding: Padding = (0, 0), stride: int = 1) -> Tensor:
    """(T, H, W, C) to (T', H', W', O), no padding in time; a weight without taps in time takes each frame by itself."""
    if weight.ndim == 4:
        y = functional.conv2d(inputs.permute(0, 3, 1, 2), weight, padding=padding, stride=stride)
        return y.permute(0, 2, 3, 1).contiguous()
    frames = inputs.permute(3, 0, 1, 2).unsqueeze(0)
    y = functional.conv3d(frames, weight, padding=(0, *padding), stride=stride)
    return y.squeeze(0).permute(1, 2, 3, 0).contiguous()


def neighbourhoods(frames: Tensor, out: Tensor, share: RowShare) -> None:
    """(T, c, H, W) to (T, H, W, 9 · c and more): each position's 3x3 surroundings, zero beyond the border, then zeros."""
    padded = functional.pad(frames, (1, 1, 1, 1))
    share.fill_around(padded.permute(0, 2, 3, 1))
    around = padded.unfold(2, 3, 1).unfold(3, 3, 1)
    filled = 9 * frames.shape[1]
    out[..., :filled].view(*out.shape[:3], -1, 3, 3).copy_(around.permute(0, 2, 3, 1, 4, 5))
    out[..., filled:] = 0
