"""The wavelet transfer: fine detail from the restored frame, everything coarser from the source."""

import torch
from torch import Tensor
from torch.nn import functional

_RADII = (1, 2, 4, 8, 16)


def transfer_wavelet(restored: Tensor, source: Tensor) -> Tensor:
    """Replace what five dilated blurs leave of the restored frame by what they leave of the source.

    Blurs are linear, so one chain over the difference does for both frames. Each frame is by itself.

    Args:
        restored: (T, 3, H, W) in [-1, 1], overshoot allowed.
        source: the same shape, the resized input.

    Returns:
        (T, 3, H, W) fp32 in [-1, 1].
    """
    difference = source.float() - restored.float()
    largest = max(1, min(restored.shape[-2:]) // 8)
    for radius in _RADII:
        difference = _blur(_blur(difference, min(radius, largest), axis=-1), min(radius, largest), axis=-2)
    return difference.add_(restored).clamp_(-1.0, 1.0)


def _blur(x: Tensor, radius: int, *, axis: int) -> Tensor:
    """Taps 1 2 1 at distance ``radius`` along one axis, borders repeated."""
    padded = functional.pad(x, (radius, radius, 0, 0) if axis == -1 else (0, 0, radius, radius), mode="replicate")
    length = x.shape[axis]
    before, after = padded.narrow(axis, 0, length), padded.narrow(axis, 2 * radius, length)
    return torch.add(before, after).add_(x, alpha=2.0).mul_(0.25)
