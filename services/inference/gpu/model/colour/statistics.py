"""Colour transfer by statistics of the pictures.

Each function looks at all frames that it is given together. Whoever wants a result that does not depend on how a video is cut
gives it one frame at a time.

Args and result of every transfer:
    restored, source: (T, 3, H, W) in [-1, 1], of one size.
    Returns (T, 3, H, W) fp32; within [-1, 1] except :func:`transfer_adain`'s.
"""

import torch
from torch import Tensor

from services.inference.gpu.model.colour.histogram import match_histogram
from services.inference.gpu.model.colour.spaces import hsv_to_rgb, lab_to_rgb, rgb_to_hsv, rgb_to_lab, saturation
from services.inference.gpu.model.colour.wavelet import transfer_wavelet

_VARIANCE_EPS = 1e-5
_LIGHTNESS_SHARE = 0.2
"""How much of the lightness is matched; the rest stays as restored, so that contrast isn't lost."""

HUE_BINS = 12
"""Parts of the hue circle."""

ENOUGH_PIXELS = 100
"""A part with as few of either picture, or fewer, stays as it is."""

_OVERSATURATED, _BLEND_SLOPE = 0.15, 5.0
_MISSED_SATURATION = 0.075


def transfer_adain(restored: Tensor, source: Tensor) -> Tensor:
    """Mean and standard deviation of each channel of each frame from the source."""
    mean, deviation = _moments(restored.float())
    wanted_mean, wanted_deviation = _moments(source.float())
    return (restored - mean) / deviation * wanted_deviation + wanted_mean


def transfer_lab(restored: Tensor, source: Tensor) -> Tensor:
    """After the wavelet transfer, the source's distribution of a and b, and a fifth of the way to that of L."""
    ours, theirs = rgb_to_lab(unit(transfer_wavelet(restored, source))), rgb_to_lab(unit(source))
    lightness, *colours = (match_histogram(a, b) for a, b in zip(ours.unbind(1), theirs.unbind(1), strict=True))
    lightness = torch.lerp(ours[:, 0], lightness, _LIGHTNESS_SHARE)
    return lab_to_rgb(torch.stack([lightness, *colours], dim=1)) * 2.0 - 1.0


def transfer_hsv(restored: Tensor, source: Tensor) -> Tensor:
    """For each twelfth of the hue circle the source's distribution of saturation; hue and value stay as restored."""
    ours, theirs = rgb_to_hsv(unit(restored)), rgb_to_hsv(unit(source))
    before = ours[:, 1].clone()
    for number in range(HUE_BINS):
        here, there = _in_bin(ours[:, 0], number), _in_bin(theirs[:, 0], number)
        wanted = theirs[:, 1][there]
        found = before[here]
        if min(len(found), len(wanted)) > ENOUGH_PIXELS:
            ours[:, 1][here] = match_histogram(found, wanted)
    return hsv_to_rgb(ours) * 2.0 - 1.0


def transfer_wavelet_adaptive(restored: Tensor, source: Tensor) -> Tensor:
    """The wavelet transfer; where the restored picture is too saturated, and that transfer doesn't help, the one by hue."""
    return blend_adaptive(restored, source, transfer_hsv(restored, source))


def blend_adaptive(restored: Tensor, source: Tensor, by_hue: Tensor) -> Tensor:
    """The same with what the transfer by hue has given."""
    by_wavelet = transfer_wavelet(restored, source)
    wanted = saturation(unit(source))
    share = torch.sigmoid(_BLEND_SLOPE * (saturation(unit(restored)) - wanted - _OVERSATURATED))
    share = torch.where(saturation(unit(by_wavelet)) - wanted > _MISSED_SATURATION, share, 0.0)
    return torch.lerp(by_wavelet, by_hue, share[:, None])


def _moments(frames: Tensor) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(frames, dim=(-2, -1), keepdim=True)
    return mean, (variance + _VARIANCE_EPS).sqrt()


def unit(frames: Tensor) -> Tensor:
    """[-1, 1] to fp32 in [0, 1], clamped."""
    return ((frames.float() + 1.0) * 0.5).clamp_(0.0, 1.0)


def _in_bin(hue: Tensor, number: int) -> Tensor:
    inside = (hue >= number / HUE_BINS) & (hue < (number + 1) / HUE_BINS)
    # Red lies on both ends of the circle: the first bin takes its other half too.
    return inside | (hue >= 1 - 1 / HUE_BINS) if number == 0 else inside
