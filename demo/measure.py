"""How close frames are to the truth."""

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

Frames = NDArray[np.uint8]
"""(T, H, W, 3) RGB."""

_LUMA = (0.299, 0.587, 0.114)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quality:
    """Means over the frames of a clip."""

    psnr_db: float
    """Peak signal-to-noise ratio over red, green and blue."""

    ssim: float
    """Structural similarity of the luma."""


def read_frames(path: Path) -> Frames:
    """All frames of a video."""
    with av.open(path) as container:
        return np.asarray([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)], np.uint8)


def enlarge(frames: Frames, *, width: int, height: int) -> Frames:
    """What a player or an editor would do."""
    pictures = [Image.fromarray(frame).resize((width, height), Image.Resampling.BICUBIC) for frame in frames]
    return np.asarray(pictures, np.uint8)


def quality(frames: Frames, truth: Frames) -> Quality:
    """Compare frame by frame. Raises ValueError where the clips are not of one shape."""
    if frames.shape != truth.shape:
        raise ValueError(f"clips of {frames.shape} and {truth.shape} can't be compared")
    pairs = list(zip(truth, frames, strict=True))
    return Quality(
        psnr_db=float(np.mean([_psnr(*pair) for pair in pairs])), ssim=float(np.mean([_ssim(*pair) for pair in pairs]))
    )


def _psnr(truth: NDArray[np.uint8], frame: NDArray[np.uint8]) -> float:
    return float(peak_signal_noise_ratio(truth, frame, data_range=255))  # type: ignore[no-untyped-call]


def _ssim(truth: NDArray[np.uint8], frame: NDArray[np.uint8]) -> float:
    return float(structural_similarity(_luma(truth), _luma(frame), data_range=255))  # type: ignore[no-untyped-call]


def _luma(frame: NDArray[np.uint8]) -> NDArray[np.float64]:
    return np.asarray(frame @ np.asarray(_LUMA), np.float64)
