"""Tiny clips, cut from the demo's."""

from pathlib import Path

import av
import numpy as np

from demo.__main__ import CLIPS
from demo.measure import Frames, read_frames

FRAMES = 5
HEIGHT, WIDTH = 48, 64


def write_clip(path: Path, frames: Frames) -> Path:
    """Write (T, H, W, 3) RGB as H.264."""
    with av.open(path, "w") as container:
        stream = container.add_stream("libx264", rate=25, options={"crf": "12"})
        stream.height, stream.width, stream.pix_fmt = *frames.shape[1:3], "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")))
        container.mux(stream.encode())
    return path


def bad_clip(path: Path) -> Path:
    """The upper left of the demo's bad clip."""
    return write_clip(path, read_frames(CLIPS / "bunny_bad.mp4")[:FRAMES, :HEIGHT, :WIDTH])


def true_clip(path: Path) -> Path:
    """The same part of the truth, twice the size."""
    return write_clip(path, read_frames(CLIPS / "bunny_truth.mp4")[:FRAMES, : 2 * HEIGHT, : 2 * WIDTH])
