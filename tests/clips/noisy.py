"""Videos with moving shapes and noise, of any length: something to restore."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def moving_picture(frames: int, width: int, height: int) -> np.ndarray:
    """(frames, height, width, 3) uint8: soft shapes that move, without noise."""
    t, y, x = np.ogrid[:frames, :height, :width]
    waves = [np.sin((x + 2 * t) / (7.0 + i)) + np.cos((y - t) / (5.0 + i)) for i in range(3)]
    picture = np.stack([np.broadcast_to(128 + 55 * wave, (frames, height, width)) for wave in waves], axis=-1)
    return picture.clip(0, 255).astype(np.uint8)


def with_noise(pictures: np.ndarray, sigma: float) -> np.ndarray:
    """The same with Gaussian noise, always the same."""
    noise = np.random.default_rng(0).normal(0, sigma, pictures.shape)
    return (pictures + noise).clip(0, 255).astype(np.uint8)


def write_clip(path: Path, pictures: Iterable[np.ndarray], *, rate: int = 25, crf: int = 12, preset: str = "medium") -> Path:
    """Encode pictures, (H, W, 3) uint8 each, as H.264."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": preset, "threads": "1"})
        stream.pix_fmt, stream.codec_context.time_base = "yuv420p", Fraction(1, rate)
        for index, picture in enumerate(pictures):
            if index == 0:
                stream.width, stream.height = picture.shape[1], picture.shape[0]
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = index
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def noisy_clip(path: Path, *, width: int, height: int, frames: int) -> Path:
    """A small bad video."""
    return write_clip(path, with_noise(moving_picture(frames, width, height), 12))


def read_clip(path: Path) -> np.ndarray:
    """All frames as (T, H, W, 3) uint8."""
    with av.open(str(path)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])
