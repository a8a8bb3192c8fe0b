"""Curves over frames, drawn with Pillow."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_WIDTH, _PANEL, _LEFT, _TOP, _RIGHT, _BOTTOM = 1000, 300, 70, 46, 20, 40
_PAPER, _INK, _AXIS, _ZONE = (255, 255, 255), (60, 60, 60), (190, 190, 190), (238, 238, 238)
_COLOURS = ((200, 60, 50), (230, 160, 40), (40, 110, 190))


@dataclass(frozen=True, slots=True)
class Curve:
    """A named line with a value for each step, and the zones that it is about."""

    name: str
    values: NDArray[np.float64]
    zones: Sequence[tuple[int, int]]


def draw(path: Path, panels: Sequence[tuple[str, Sequence[Curve]]]) -> None:
    """Write one picture of all panels, each with its title and curves, all with one scale."""
    page = Image.new("RGB", (_WIDTH, _PANEL * len(panels)), _PAPER)
    values = np.concatenate([curve.values for _, curves in panels for curve in curves])
    limits = min(0.0, float(values.min())), max(0.02, float(values.max()))
    for number, (title, curves) in enumerate(panels):
        _draw_panel(ImageDraw.Draw(page), _PANEL * number, title, curves, limits)
    path.parent.mkdir(parents=True, exist_ok=True)
    page.save(path)


def _draw_panel(pen: ImageDraw.ImageDraw, y: int, title: str, curves: Sequence[Curve], limits: tuple[float, float]) -> None:
    font = ImageFont.load_default(size=15)
    top, bottom = y + _TOP, y + _PANEL - _BOTTOM
    low, high = limits
    count = len(curves[0].values)

    def at(step: float, value: float) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - _RIGHT) * (step - 1) / max(1, count - 1)
        return x, bottom - (bottom - top) * (value - low) / (high - low)

    for first, last in {zone for curve in curves for zone in curve.zones}:
        left, right = at(max(first - 0.5, 1), 0)[0], at(min(last + 0.5, count), 0)[0]
        pen.rectangle((left, top, right, bottom), fill=_ZONE)
    for value in np.linspace(low, high, 5):
        pen.text((_LEFT - 8, at(1, value)[1]), f"{value:.3f}", _INK, font, anchor="rm")
    pen.line((at(1, 0), at(count, 0)), fill=_AXIS)
    pen.text((_LEFT, y + 22), f"{title}: change that a border adds, 8-bit levels of luma", _INK, font, anchor="lm")
    pen.text((_WIDTH - _RIGHT, bottom + 20), f"frame 1 to {count}", _INK, font, anchor="rm")
    for number, (curve, colour) in enumerate(zip(curves, _COLOURS, strict=False)):
        pen.line([at(i + 1, value) for i, value in enumerate(curve.values)], fill=colour, width=2)
        x, below = _LEFT + 190 * number, bottom + 20
        pen.line((x, below, x + 24, below), fill=colour, width=3)
        pen.text((x + 32, below), curve.name, colour, font, anchor="lm")
