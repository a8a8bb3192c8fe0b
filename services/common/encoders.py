"""Encoders of videos that a request may name, and what stands behind each name."""

from dataclasses import dataclass

from services.common.pixels import NVENC_H264, NVENC_HEVC, PICTURE_ENCODER, VIDEO_ENCODER


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedEncoder:
    """An encoder as people name it."""

    title: str
    """As texts name it."""

    shallow: str
    """FFmpeg's name of what encodes 8 bits."""

    deep: str
    """The same for more bits."""

    @property
    def names(self) -> frozenset[str]:
        """FFmpeg's."""
        return frozenset({self.shallow, self.deep})


X264, NVENC = "x264", "nvenc"

ENCODERS = {
    X264: NamedEncoder(title="x264", shallow=VIDEO_ENCODER, deep=VIDEO_ENCODER),
    NVENC: NamedEncoder(title="NVENC", shallow=NVENC_H264, deep=NVENC_HEVC),
}
"""By name; the first is what a request gets that names none, and no other is ever chosen for it."""

SIDES = {NVENC_H264: (160, 4096), NVENC_HEVC: (160, 8192)}
"""Pixels of the shortest and the longest side that every card of an encoder takes; encoders that aren't here take any."""

HARDWARE_ENCODERS = (NVENC_H264, NVENC_HEVC)
"""Those that a worker may have or not, by FFmpeg's names."""

EVERYWHERE = frozenset({VIDEO_ENCODER, PICTURE_ENCODER})
"""Those that every worker has, whatever it says."""


def named_encoder(name: str) -> NamedEncoder:
    """What a request's ``encoder``, which may be empty, stands for. Raises KeyError."""
    return ENCODERS[name or X264]


def title_of(encoder: str) -> str:
    """How texts name an encoder of videos that FFmpeg calls ``encoder``."""
    return next((named.title for named in ENCODERS.values() if encoder in named.names), encoder)
