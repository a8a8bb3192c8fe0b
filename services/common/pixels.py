"""How restored frames are encoded: which pixel formats there are, and what each means for the model and for the result."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """A pixel format that segments are encoded in."""

    encoders: tuple[str, ...]
    """FFmpeg's names of the encoders that take it."""

    bits: int
    """Of a sample that the model is given, and gives back, for it: 8 or 16."""

    alpha: bool = False
    """Whether transparency goes along as a fourth channel."""

    @property
    def channels(self) -> int:
        """Of the frames: 3 or 4."""
        return 4 if self.alpha else 3


VIDEO_ENCODER, PICTURE_ENCODER = "libx264", "png"
"""Encoders of videos for players, and of frames that must come out exactly. Every worker has them."""

NVENC_H264, NVENC_HEVC = "h264_nvenc", "hevc_nvenc"
"""Encoders of NVIDIA's cards, of 8 and of 10 bits: no card of today's data centres encodes H.264 of 10 bits."""

PIXEL_FORMATS = {
    "yuv420p": PixelFormat(encoders=(VIDEO_ENCODER, NVENC_H264), bits=8),
    "yuv420p10le": PixelFormat(encoders=(VIDEO_ENCODER,), bits=16),
    "p010le": PixelFormat(encoders=(NVENC_HEVC,), bits=16),
    "rgb24": PixelFormat(encoders=(PICTURE_ENCODER,), bits=8),
    "rgb48be": PixelFormat(encoders=(PICTURE_ENCODER,), bits=16),
    "rgba": PixelFormat(encoders=(PICTURE_ENCODER,), bits=8, alpha=True),
    "rgba64be": PixelFormat(encoders=(PICTURE_ENCODER,), bits=16, alpha=True),
}
"""By FFmpeg's names."""


def pixel_format(encoder: str, *, deep: bool, alpha: bool = False) -> str:
    """The name of an encoder's format for sources of 8 bits, or of more (``deep``)."""
    bits = 16 if deep else 8
    return next(name for name, f in PIXEL_FORMATS.items() if encoder in f.encoders and (f.bits, f.alpha) == (bits, alpha))
