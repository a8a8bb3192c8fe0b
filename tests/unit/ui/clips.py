"""Tiny real videos, made when needed."""

import functools
import io

import av
import numpy as np


@functools.cache
def tiny_clip(frames: int = 24, width: int = 64, height: int = 48) -> bytes:
    """An H.264 MP4 that browsers play: a bright square that moves over a gradient."""
    written = io.BytesIO()
    with av.open(written, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=24)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for number in range(frames):
            picture = np.zeros((height, width, 3), dtype=np.uint8)
            picture[..., 1] = np.linspace(0, 200, width, dtype=np.uint8)
            picture[10:26, number : number + 16] = (250, 120, 30)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
    return written.getvalue()
