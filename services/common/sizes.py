"""How large a restored video is.

A job asks for a scale, for the length of the short side, or for a box to fit into. The shape that a viewer sees is kept: a
source whose pixels aren't square is first thought stretched to square ones, on the side that doesn't lose any.
"""

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from services.common.errors import InvalidOption

SMALLEST_SIDE = 16
"""Pixels; nothing useful is smaller."""

LARGEST_SIDE = 16384
"""Pixels; encoders and players end here."""

_SMALLEST_SCALE = Fraction(1, 16)
_LARGEST_SCALE = Fraction(64)


class OutputSize(NamedTuple):
    """A frame's size in pixels."""

    width: int
    """Columns."""

    height: int
    """Rows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """What a job asks for: exactly one of a scale, a short side, or a box."""

    scale: float | None = None
    """Factor for both sides."""

    short_side: int | None = None
    """Pixels of the shorter side."""

    width: int | None = None
    """Pixels of the box to fit into; goes with ``height``."""

    height: int | None = None
    """Pixels of the box to fit into; goes with ``width``."""

    def __post_init__(self) -> None:
        if (self.width is None) != (self.height is None):
            raise InvalidOption("a box to fit into needs a width and a height", field="target.box")
        if [self.scale, self.short_side, self.width].count(None) != 2:
            raise InvalidOption("ask for exactly one of scale, short_side, and width with height", field="target")
        if self.scale is not None and not _SMALLEST_SCALE <= self.scale <= _LARGEST_SCALE:
            limits = f"{float(_SMALLEST_SCALE):g} and {float(_LARGEST_SCALE):g}"
            raise InvalidOption(f"scale {self.scale:g} is not between {limits}", field="target.scale")
        for field in ("short_side", "width", "height"):
            _check_side(field, getattr(self, field))


def _check_side(field: str, pixels: int | None) -> None:
    if pixels is not None and not SMALLEST_SIDE <= pixels <= LARGEST_SIDE:
        path = "target.short_side" if field == "short_side" else f"target.box.{field}"
        raise InvalidOption(f"{field} {pixels} is not between {SMALLEST_SIDE} and {LARGEST_SIDE} pixels", field=path)


def output_size(width: int, height: int, target: Target | None = None, *, pixel_aspect: Fraction = Fraction(1)) -> OutputSize:
    """The size of the restored frames, both sides even.

    Args:
        width: of the source's frames, pixels.
        height: of the source's frames, pixels.
        target: what was asked for; None: as large as the source.
        pixel_aspect: width of a source pixel by its height; 0 or less counts as unknown, so square.

    Raises:
        InvalidOption: the result would be too small or too large.
    """
    seen_width, seen_height = _square(width, height, pixel_aspect)
    factor = _factor(seen_width, seen_height, target)
    size = OutputSize(_even(seen_width * factor), _even(seen_height * factor))
    if target is not None and target.width is not None and target.height is not None:
        size = OutputSize(min(size.width, target.width // 2 * 2), min(size.height, target.height // 2 * 2))
    if min(size) < SMALLEST_SIDE or max(size) > LARGEST_SIDE:
        limits = f"sides from {SMALLEST_SIDE} to {LARGEST_SIDE} pixels are possible"
        raise InvalidOption(f"the result would be {size.width}x{size.height}; {limits}", field="target")
    return size


def _square(width: int, height: int, pixel_aspect: Fraction) -> tuple[Fraction, Fraction]:
    if pixel_aspect <= 0:
        return Fraction(width), Fraction(height)
    return width * max(pixel_aspect, Fraction(1)), height / min(pixel_aspect, Fraction(1))


def _factor(width: Fraction, height: Fraction, target: Target | None) -> Fraction:
    if target is None:
        return Fraction(1)
    if target.scale is not None:
        return Fraction(target.scale)
    if target.short_side is not None:
        return target.short_side / min(width, height)
    if target.width is None or target.height is None:
        raise InvalidOption("a box to fit into needs a width and a height", field="target.box")
    return min(target.width / width, target.height / height)


def _even(side: Fraction) -> int:
    return 2 * math.floor(side / 2 + Fraction(1, 2))


def area_rule(width: int, height: int, area: int) -> OutputSize:
    """The released scripts' rule: the same aspect ratio at about ``area`` pixels, before cropping."""
    scale = math.sqrt(math.sqrt(area) ** 2 / (height * width))
    return OutputSize(round(width * scale), round(height * scale))


def short_side_rule(width: int, height: int, short_side: int, longest: int = 0) -> OutputSize:
    """A widespread port's rule: the short side exact, the long one truncated, at most ``longest`` (0: any).

    It pads this size to multiples for the model and cuts the result to even sides.
    """
    short, long = min(width, height), max(width, height)
    scaled = int(short_side * long / short)
    width, height = (scaled, short_side) if width >= height else (short_side, scaled)
    if 0 < longest < max(width, height):
        ratio = longest / max(width, height)
        width, height = round(width * ratio), round(height * ratio)
    return OutputSize(width, height)


def round_down(size: OutputSize, multiple: int) -> OutputSize:
    """Both sides to multiples, as cropping does."""
    return OutputSize(size.width // multiple * multiple, size.height // multiple * multiple)


def round_up(size: OutputSize, multiple: int) -> OutputSize:
    """Both sides to multiples, as padding does."""
    return OutputSize(-(-size.width // multiple) * multiple, -(-size.height // multiple) * multiple)
