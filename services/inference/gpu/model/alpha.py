"""Transparency: it doesn't go through the model, but is enlarged along the edges of the restored picture.

By the rules of a widespread port, without its defects: means near a border don't count what lies outside, so that transparency
isn't darkened there; a picture without edges is no division by zero; and each frame is judged by itself, so that no result
depends on how a video is cut.
"""

import torch
from torch import Tensor
from torch.nn import functional

from services.inference.gpu.model.frames import resize

_SOFT_RADIUS, _MASK_RADIUS, _FILTER_EPS = 3, 2, 0.002
# A mask: nearly every value is as good as 0 or 1.
_NEARLY_0, _NEARLY_1, _MASK_SHARE = 0.1, 0.9, 0.95
_SHARPNESS, _FULL_EDGE = 12.0, 0.25
# Where the strongest edge nearby is weaker than this, a mask has no values in between.
_NO_EDGE_NEAR, _NEARLY_NO_EDGE_NEAR = 0.05, 0.03
_UNDECIDED, _WEAK_EDGE = (0.3, 0.7), 0.15
# Luma of 8-bit RGB in 15-bit fixed point.
_LUMA, _LUMA_BITS = (9798, 19235, 3735), 15


def enlarge_alpha(alpha: Tensor, restored: Tensor) -> Tensor:
    """Transparency for restored frames.

    Args:
        alpha: (T, 1, h, w) in [0, 1].
        restored: (T, 3, H, W) in [-1, 1], before colours are transferred; overshoot allowed.

    Returns:
        (T, 1, H, W) fp32 in [0, 1].
    """
    guides = (restored.float() + 1.0) * 0.5
    return torch.cat([_one_frame(alpha[i : i + 1], guides[i : i + 1]) for i in range(len(alpha))])


def _one_frame(alpha: Tensor, guide: Tensor) -> Tensor:
    enlarged = resize(alpha, *guide.shape[-2:])
    decided = ((alpha < _NEARLY_0) | (alpha > _NEARLY_1)).float().mean()
    grey = guide.mean(1, keepdim=True)
    # A choice on the device: no copy to the host for a number that is needed there only.
    soft = guided_filter(grey, enlarged, _SOFT_RADIUS).clamp_(0.0, 1.0)
    mask = _sharpened(guided_filter(grey, enlarged, _MASK_RADIUS), edges(guide))
    found = torch.where(decided > _MASK_SHARE, mask, soft)
    # What is opaque all over stays so; a smoothed step never quite reaches 1.
    return torch.where(alpha.amax() == alpha.amin(), enlarged, found)


def guided_filter(guide: Tensor, values: Tensor, radius: int) -> Tensor:
    """Smooth ``values`` but where ``guide`` has an edge: in each box they are the straight line of the guide that fits best.

    Args:
        guide: (T, 1, H, W).
        values: the same shape.
        radius: of a box of 2 · radius + 1 pixels a side.
    """
    mean_guide, mean_values = _box_mean(guide, radius), _box_mean(values, radius)
    variance = _box_mean(guide * guide, radius) - mean_guide**2
    covariance = _box_mean(guide * values, radius) - mean_guide * mean_values
    slope = covariance / (variance + _FILTER_EPS)
    offset = mean_values - slope * mean_guide
    return _box_mean(slope, radius) * guide + _box_mean(offset, radius)


def edges(guide: Tensor) -> Tensor:
    """(T, 3, H, W) in [0, 1] to (T, 1, H, W): strength of the edges by the strongest one of the frame, in steps of 1/255."""
    samples = (255.0 * guide).clamp(0.0, 255.0).floor()
    red, green, blue = (weight * channel for weight, channel in zip(_LUMA, samples.unbind(1), strict=True))
    half = 1 << (_LUMA_BITS - 1)
    grey = ((red + green + blue + half) / (1 << _LUMA_BITS)).floor()[:, None]
    padded = functional.pad(grey, (1, 1, 1, 1), mode="reflect")
    across, down = padded[..., 2:] - padded[..., :-2], padded[..., 2:, :] - padded[..., :-2, :]
    horizontal = across[..., :-2, :] + 2 * across[..., 1:-1, :] + across[..., 2:, :]
    vertical = down[..., :-2] + 2 * down[..., 1:-1] + down[..., 2:]
    strength = (horizontal**2 + vertical**2).sqrt()
    strongest = strength.amax((-2, -1), keepdim=True)
    return (strength / strongest.clamp_min(1.0) * 255.0).floor() / 255.0


def _sharpened(mask: Tensor, edge: Tensor) -> Tensor:
    """A smoothed mask with steps where the picture has edges, and with 0 and 1 only where it has none."""
    near = functional.max_pool2d(edge, 3, stride=1, padding=1)
    stepped = torch.sigmoid(_SHARPNESS * (mask - 0.5))
    share = (edge / _FULL_EDGE).clamp(0.0, 1.0)
    found = torch.where(near < _NO_EDGE_NEAR, (mask > 0.5).float(), mask * (1 - share) + stepped * share)
    found = torch.where(near < _NEARLY_NO_EDGE_NEAR, (found > 0.5).float(), found)
    undecided = (found > _UNDECIDED[0]) & (found < _UNDECIDED[1]) & (edge <= _WEAK_EDGE)
    return torch.where(undecided, (found > 0.5).float(), found).clamp_(0.0, 1.0)


def _box_mean(values: Tensor, radius: int) -> Tensor:
    return functional.avg_pool2d(values, 2 * radius + 1, stride=1, padding=radius, count_include_pad=False)
