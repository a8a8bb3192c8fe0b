"""Videos of several shots, made of real frames: the embedded clip as it is, mirrored and darkened, turned, and as a negative."""

from pathlib import Path

import numpy as np

from tests.clips.noisy import read_clip, write_clip

BUNNY = Path(__file__).parent / "bunny_noisy.mp4"


def shot(number: int, frames: int) -> np.ndarray:
    """(frames, H, W, 3): a shot that moves; numbers 0 to 3 look different."""
    source = read_clip(BUNNY)[:, ::2, ::2]
    source = source[np.arange(frames) % len(source)]
    views = (source, source[:, :, ::-1] // 3, source[:, ::-1, ::-1, ::-1], 255 - source)
    return views[number % 4]


def shots(path: Path, *lengths: int) -> Path:
    """A video of shots with hard cuts between them."""
    return write_clip(path, (frame for number, length in enumerate(lengths) for frame in shot(number, length)), preset="veryfast")


def fade(path: Path, frames: int) -> Path:
    """A shot that goes over into the next one gently, and then to black."""
    first, second = (shot(number, 3 * frames).astype(np.float64) for number in (0, 1))
    weights = np.clip(np.arange(-frames, 2 * frames) / frames, 0, 1)[:, None, None, None]
    light = np.clip((2 * frames - np.arange(3 * frames)) / frames, 0, 1)[:, None, None, None]
    mixed = ((1 - weights) * first + weights * second) * light
    return write_clip(path, mixed.astype(np.uint8), preset="veryfast")


def flash(path: Path, frames: int, at: int) -> Path:
    """A shot in which a single frame is white."""
    lit = shot(0, frames).copy()
    lit[at] = 240
    return write_clip(path, lit, preset="veryfast")
