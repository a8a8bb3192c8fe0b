"""What encoders are told. Pure."""

from services.common.pixels import NVENC_H264, PICTURE_ENCODER, VIDEO_ENCODER

_NVENC_PRESETS = {
    "ultrafast": "p1", "superfast": "p1", "veryfast": "p2", "faster": "p3", "fast": "p4", "medium": "p5", "slow": "p6",
    "slower": "p7", "veryslow": "p7", "placebo": "p7",
}  # fmt: skip
"""NVENC's preset for each of x264's."""

PRESETS = tuple(_NVENC_PRESETS)
"""By x264's names."""


def encoder_options(encoder: str, crf: int, preset: str) -> tuple[tuple[str, str], ...]:
    """Options of an encoder by FFmpeg's name, sorted by name; ``preset`` is one of PRESETS."""
    if encoder == PICTURE_ENCODER:
        return ("compression_level", "3"), ("pred", "up")
    if encoder == VIDEO_ENCODER:
        return ("crf", str(crf)), ("preset", preset)
    return _nvenc_options(encoder, crf, preset)


def _nvenc_options(encoder: str, crf: int, preset: str) -> tuple[tuple[str, str], ...]:
    # Its constant quality has x264's scale, but 0 there means that the driver chooses. Without frames between that wait for later
    # ones, time stamps leave in the order in which they came; a keyframe comes at least as often as x264 sets one.
    options = {
        "bf": "0", "cq": str(max(1, crf)), "g": "250", "preset": _NVENC_PRESETS[preset],
        "profile": "high" if encoder == NVENC_H264 else "main10", "rc": "vbr", "tune": "hq",
    }  # fmt: skip
    return tuple(sorted(options.items()))
