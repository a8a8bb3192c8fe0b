"""Frames side by side, with their names."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

_PART = (0.04, 0.66)
"""From where to where of a frame's width is shown, so that three fit on a page."""

_GAP, _LABEL = 6, 30
_PAPER, _INK = (255, 255, 255), (32, 32, 32)


def side_by_side(frames: dict[str, NDArray[np.uint8]]) -> Image.Image:
    """One picture of all frames, (H, W, 3) RGB of one size, each under its name."""
    height, width = next(iter(frames.values())).shape[:2]
    left, right = (round(width * part) for part in _PART)
    step = right - left + _GAP
    page = Image.new("RGB", (step * len(frames) - _GAP, height + _LABEL), _PAPER)
    draw = ImageDraw.Draw(page)
    font = ImageFont.load_default(size=_LABEL * 0.6)
    for number, (name, frame) in enumerate(frames.items()):
        draw.text((number * step + (right - left) / 2, _LABEL / 2), name, _INK, font, anchor="mm")
        page.paste(Image.fromarray(np.ascontiguousarray(frame[:, left:right])), (number * step, _LABEL))
    return page
