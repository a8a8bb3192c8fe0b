"""How restored frames are encoded: which pixel formats there are, and what each means for the model and for the result."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelFormat:
    """A pixel format that segments are encoded in."""

    encoder: str
    """FFmpeg's name of the encoder that takes it."""

    bits: int
    """Of a sample that the model is given, and gives back, for it: 8 or 16."""

    alpha: bool = False
    """Whether transparency goes along as a fourth channel."""

    @property
    def channels(self) -> int:
        """Of the frames: 3 or 4."""
        return 4 if self.alpha else 3


VIDEO_ENCODER, PICTURE_ENCODER = "libx264", "png"
"""Encoders of videos for players, and of frames that must come out exactly."""

PIXEL_FORMATS = {
    "yuv420p": PixelFormat(encoder=VIDEO_ENCODER, bits=8),
    "yuv420p10le": PixelFormat(encoder=VIDEO_ENCODER, bits=16),
    "rgb24": PixelFormat(encoder=PICTURE_ENCODER, bits=8),
    "rgb48be": PixelFormat(encoder=PICTURE_ENCODER, bits=16),
    "rgba": PixelFormat(encoder=PICTURE_ENCODER, bits=8, alpha=True),
    "rgba64be": PixelFormat(encoder=PICTURE_ENCODER, bits=16, alpha=True),
}
"""By FFmpeg's names."""


def pixel_format(encoder: str, *, deep: bool, alpha: bool = False) -> str:
    """The name of an encoder's format for sources of 8 bits, or of more (``deep``)."""
    bits = 16 if deep else 8
    return next(name for name, f in PIXEL_FORMATS.items() if (f.encoder, f.bits, f.alpha) == (encoder, bits, alpha))
