"""RGB to Lab and HSV and back. Tensors are (T, 3, H, W) fp32; RGB is sRGB in [0, 1]."""

import torch
from torch import Tensor

# sRGB primaries at a D65 white (IEC 61966-2-1).
_TO_XYZ = (
    (0.4124564, 0.3575761, 0.1804375),
    (0.2126729, 0.7151522, 0.0721750),
    (0.0193339, 0.1191920, 0.9503041),
)
_FROM_XYZ = (
    (3.2404542, -1.5371385, -0.4985314),
    (-0.9692660, 1.8760108, 0.0415560),
    (0.0556434, -0.2040259, 1.0572252),
)
_WHITE = (0.95047, 1.0, 1.08883)
# CIE 15: where the cube root of lightness turns into a straight line.
_EDGE = 6 / 29
_KAPPA = (29 / 3) ** 3
_GREY_RANGE = 1e-10
# Which of v, p, q, t (0 to 3) are red, green and blue in each sixth of the hue circle.
_SECTORS = ((0, 3, 1), (2, 0, 1), (1, 0, 3), (1, 2, 0), (3, 1, 0), (0, 1, 2))


def rgb_to_lab(rgb: Tensor) -> Tensor:
    """sRGB to L in [0, 100], a and b."""
    linear = torch.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    ratio = _mixed(linear, _TO_XYZ) / _column(_WHITE, rgb)
    # The straight line takes over below, so the root needs no smaller values; of 0 its slope would be infinite.
    root = ratio.clamp_min(_EDGE**3) ** (1 / 3)
    x, y, z = torch.where(ratio > _EDGE**3, root, (_KAPPA * ratio + 16) / 116).unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=1)


def lab_to_rgb(lab: Tensor) -> Tensor:
    """L, a and b to sRGB, clamped to [0, 1]."""
    lightness, a, b = lab.unbind(1)
    y = (lightness + 16) / 116
    roots = torch.stack([y + a / 500, y, y - b / 200], dim=1)
    ratio = torch.where(roots > _EDGE, roots**3, (116 * roots - 16) / _KAPPA)
    linear = _mixed(ratio * _column(_WHITE, lab), _FROM_XYZ)
    curved = 1.055 * linear.clamp_min(0.0031308) ** (1 / 2.4) - 0.055
    return torch.where(linear > 0.0031308, curved, 12.92 * linear).clamp_(0.0, 1.0)


def saturation(rgb: Tensor) -> Tensor:
    """(T, 3, H, W) to (T, H, W): S of HSV, 0 for black."""
    value, smallest = rgb.amax(1), rgb.amin(1)
    return torch.where(value > _GREY_RANGE, (value - smallest) / value.clamp_min(_GREY_RANGE), 0.0)


def rgb_to_hsv(rgb: Tensor) -> Tensor:
    """sRGB to hue, saturation and value, each in [0, 1]; greys have hue 0."""
    red, green, blue = rgb.unbind(1)
    value = rgb.amax(1)
    spread = value - rgb.amin(1)
    safe = spread.clamp_min(_GREY_RANGE)
    hue = torch.remainder((green - blue) / safe, 6.0)
    hue = torch.where(value == green, (blue - red) / safe + 2.0, hue)
    hue = torch.where(value == blue, (red - green) / safe + 4.0, hue)
    hue = torch.where(spread > _GREY_RANGE, hue / 6.0, 0.0)
    return torch.stack([hue, saturation(rgb), value], dim=1)


def hsv_to_rgb(hsv: Tensor) -> Tensor:
    """Hue, saturation and value to sRGB, clamped to [0, 1]."""
    hue, sat, value = hsv.unbind(1)
    sector = torch.floor(6.0 * hue)
    part = 6.0 * hue - sector
    choices = (value, value * (1 - sat), value * (1 - part * sat), value * (1 - (1 - part) * sat))
    sector = torch.remainder(sector, 6.0)
    rgb = torch.zeros_like(hsv)
    for number, picks in enumerate(_SECTORS):
        colours = torch.stack([choices[pick] for pick in picks], dim=1)
        rgb = torch.where((sector == number)[:, None], colours, rgb)
    return rgb.clamp_(0.0, 1.0)


def _mixed(channels: Tensor, rows: tuple[tuple[float, float, float], ...]) -> Tensor:
    # Written out: a matrix product may run in lower precision on a GPU.
    first, second, third = channels.unbind(1)
    return torch.stack([a * first + b * second + c * third for a, b, c in rows], dim=1)


def _column(values: tuple[float, float, float], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device, dtype=like.dtype)[:, None, None]
