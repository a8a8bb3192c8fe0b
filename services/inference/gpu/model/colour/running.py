"""The transfer by hue for a video: statistics of the last frames, so that colours don't jump from one frame to the next.

A frame alone has few pixels of some hues, and what they are matched with would change at random. Counts are whole numbers, so
the result is the same each time on every device that rounds alike.
"""

from collections import deque

import torch
from torch import Tensor

from services.inference.gpu.model.colour.spaces import hsv_to_rgb, rgb_to_hsv
from services.inference.gpu.model.colour.statistics import ENOUGH_PIXELS, HUE_BINS, unit

LAST_FRAMES = 12
"""Frames whose saturations count: this one and those before it in the shot."""

_TOP = 4095
_LEVELS = _TOP + 1


class RunningHsv:
    """:func:`transfer_hsv` frame after frame, with the distribution of saturation over the last frames."""

    def __init__(self, last_frames: int = LAST_FRAMES) -> None:
        self._counts: deque[Tensor] = deque(maxlen=last_frames)

    def __call__(self, restored: Tensor, source: Tensor) -> Tensor:
        """Take the next frame.

        Args:
            restored: (1, 3, H, W) in [-1, 1].
            source: the same shape.

        Returns:
            (1, 3, H, W) fp32 in [-1, 1].
        """
        hsv = rgb_to_hsv(unit(restored))
        self._counts.append(torch.stack([_count(hsv), _count(rgb_to_hsv(unit(source)))]))
        hsv[:, 1] = _looked_up(hsv, _tables(torch.stack(list(self._counts)).sum(0)))
        return hsv_to_rgb(hsv) * 2.0 - 1.0


def _bins(hsv: Tensor) -> Tensor:
    return (hsv[:, 0] * HUE_BINS).long().clamp_(max=HUE_BINS - 1)


def _count(hsv: Tensor) -> Tensor:
    """(HUE_BINS, levels): pixels by hue and saturation."""
    places = (_bins(hsv) * _LEVELS + (hsv[:, 1] * _TOP).round_().long()).flatten()
    counts = places.new_zeros(HUE_BINS * _LEVELS).scatter_add_(0, places, torch.ones_like(places)).view(HUE_BINS, _LEVELS)
    # Red lies on both ends of the circle: the first bin takes its other half too.
    counts[0] += counts[-1]
    return counts


def _tables(counts: Tensor) -> Tensor:
    """(2, bins, levels) counts of ours and theirs to (bins, levels): the saturation, in levels, that each level becomes."""
    below = counts.cumsum(-1)
    (ours, theirs), (total, wanted) = below, below[..., -1:]
    # The middle of a level's ranks among ours, and the first level of theirs that reaches it; multiplied out to stay whole.
    table = torch.searchsorted(2 * theirs * total, (2 * ours - counts[0]) * wanted).clamp_(max=_TOP)
    usable = torch.minimum(total, wanted) > ENOUGH_PIXELS
    table = torch.where(usable, table, torch.arange(_LEVELS, device=counts.device))
    # The last bin's red pixels go with the first bin where they are too few for themselves.
    table[-1] = torch.where(usable[-1], table[-1], table[0])
    return table.float()


def _looked_up(hsv: Tensor, tables: Tensor) -> Tensor:
    """Saturations by table, in between on a straight line."""
    level = hsv[:, 1] * _TOP
    lower = level.long().clamp_(max=_TOP - 1)
    places = _bins(hsv) * _LEVELS + lower
    flat = tables.flatten()
    return torch.lerp(flat[places], flat[places + 1], level - lower).div_(_TOP)
