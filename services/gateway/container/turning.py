"""Pictures as a viewer shows them. Pure."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Pixels = NDArray[np.unsignedinteger[Any]]
"""(H, W, C), full range, 8 or 16 bits."""


def turned(pixels: Pixels, matrix: Sequence[int]) -> Pixels:
    """Turned by quarters, and mirrored, by a display matrix: x' = a · x + c · y, y' = b · x + d · y; empty: as they are."""
    if not matrix:
        return pixels
    a, b, _, c, d = matrix[:5]
    if abs(a) + abs(d) < abs(b) + abs(c):
        pixels, across, down = pixels.swapaxes(0, 1), c, b
    else:
        across, down = a, d
    return np.ascontiguousarray(pixels[:: -1 if down < 0 else 1, :: -1 if across < 0 else 1])
