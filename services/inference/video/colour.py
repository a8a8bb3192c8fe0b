"""YUV to RGB and back with the source's own matrix, so that what the model doesn't touch stays as it was."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation, VideoReformatter
from numpy.typing import NDArray

from services.common.media import CodecParameters

Frames = NDArray[np.unsignedinteger[Any]]
"""(T, H, W, 3) RGB or (T, H, W, 4) RGBA, full range: uint8, or uint16 for sources of more than 8 bits."""

_LIMITED, _FULL = 1, 2
_BT709, _BT601 = 1, 6
# Numbers of ITU-T H.273 that the scaler knows; 10 differs from 9 in what it does to light, not in its matrix.
_KNOWN_MATRICES = {1: 1, 4: 4, 5: 5, 6: 6, 7: 7, 9: 9, 10: 9}
_BT601_LINES = 720
# Bicubic chroma, rounding instead of truncation, and the same bytes on every processor.
_SCALING = (
    Interpolation.BICUBIC
    | Interpolation.ACCURATE_RND
    | Interpolation.FULL_CHR_H_INT
    | Interpolation.FULL_CHR_H_INP
    | Interpolation.BITEXACT
)
# What the scaler makes of white where samples have 16 bits.
_SCALER_WHITE, _WHITE = 65283, 65535
_RGB = {(8, False): "rgb24", (16, False): "rgb48le", (8, True): "rgba", (16, True): "rgba64le"}
_GREY = {"gray": "yuv444p", "gray10le": "yuv444p10le", "gray12le": "yuv444p12le"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Colours:
    """How a source's samples mean colours, and what the result says of its own. Numbers of ITU-T H.273."""

    matrix: int
    """Used both ways, and a tag of the result."""

    source_range: int
    """1: limited, 2: full. The result's is limited."""

    primaries: int
    """A tag only."""

    transfer: int
    """A tag only."""


def colours_of(codec: CodecParameters) -> Colours:
    """What a source says, or what players assume where it says nothing: BT.601 below 720 lines, BT.709 from there."""
    assumed = _BT601 if codec.height < _BT601_LINES else _BT709
    full = codec.colour_range == _FULL or codec.pixel_format.startswith("yuvj")
    return Colours(
        matrix=_KNOWN_MATRICES.get(codec.colour_matrix, assumed),
        source_range=_FULL if full else _LIMITED,
        primaries=codec.colour_primaries,
        transfer=codec.colour_transfer,
    )


class FrameReader:
    """Decoded frames to RGB pictures of one size."""

    def __init__(self, colours: Colours, width: int, height: int, bit_depth: int, *, alpha: bool = False) -> None:
        """``alpha``: pictures have a fourth channel; it is opaque where the source has none."""
        self._colours = colours
        self._size = width, height
        self._format = _RGB[bit_depth, alpha]
        self._scaler, self._grey_scaler = VideoReformatter(), VideoReformatter()

    def picture(self, frame: VideoFrame) -> Frames:
        """(height, width, 3 or 4); a frame of another size than the stream's is scaled to it."""
        found = self._with_chroma(frame)
        found.colorspace = self._colours.matrix
        rgb = self._scaler.reformat(
            found, *self._size, self._format, src_colorspace=self._colours.matrix, interpolation=_SCALING,
            src_color_range=self._colours.source_range, dst_color_range=_FULL, threads=1,
        )  # fmt: skip
        picture: Frames = rgb.to_ndarray()  # type: ignore[assignment]  # of these formats always whole numbers
        return picture if picture.dtype == np.uint8 or _is_exact(found) else _stretched(picture, found)

    def _with_chroma(self, frame: VideoFrame) -> VideoFrame:
        # The scaler takes grey for full range, whatever the stream says.
        target = _GREY.get(frame.format.name) if self._colours.source_range == _LIMITED else None
        if target is None:
            return frame
        return self._grey_scaler.reformat(
            frame, format=target, src_color_range=_FULL, dst_color_range=_FULL, interpolation=_SCALING, threads=1
        )


class FrameWriter:
    """RGB pictures to frames for an encoder."""

    def __init__(self, colours: Colours, pixel_format: str) -> None:
        self._colours = colours
        self._format = pixel_format
        self._scaler = VideoReformatter()

    def frame(self, picture: Frames) -> VideoFrame:
        """A frame in the encoder's pixel format, limited range but for RGB; ``picture`` is (H, W, 3 or 4)."""
        deep, exact = picture.dtype == np.uint16, VideoFormat(self._format).is_rgb
        source = _RGB[16 if deep else 8, picture.shape[2] == 4]
        rgb = VideoFrame.from_ndarray(_TO_SCALER[picture] if deep and not exact else picture, source)
        if exact:
            return self._scaler.reformat(rgb, format=self._format, src_color_range=_FULL, dst_color_range=_FULL, threads=1)
        return self._scaler.reformat(
            rgb, format=self._format, dst_colorspace=self._colours.matrix, interpolation=_SCALING,
            src_color_range=_FULL, dst_color_range=_LIMITED, threads=1,
        )  # fmt: skip


def _is_exact(frame: VideoFrame) -> bool:
    """Whether the scaler only moves samples of this frame: RGB, and grey of 8 or 16 bits."""
    return frame.format.is_rgb or len(frame.format.components) < 3


def _stretched(picture: Frames, frame: VideoFrame) -> Frames:
    """16-bit samples of a YUV frame, from the scaler's white to ours."""
    components = frame.format.components
    if picture.shape[2] == 3:
        return _FROM_SCALER[picture]
    # Transparency is not converted but shifted up.
    bits = components[-1].bits
    opaque = ((1 << bits) - 1) << (16 - bits) if components[-1].is_alpha else _WHITE
    alpha = np.minimum(np.round(picture[..., 3:] * (_WHITE / opaque)), _WHITE).astype(np.uint16)
    return np.concatenate([_FROM_SCALER[picture[..., :3]], alpha], axis=-1)


def _table(white: int, wanted: int) -> NDArray[np.uint16]:
    """For each 16-bit sample the one that is as bright where not ``white`` but ``wanted`` is white."""
    return np.minimum(np.round(np.arange(65536) * (wanted / white)), _WHITE).astype(np.uint16)


_FROM_SCALER, _TO_SCALER = _table(_SCALER_WHITE, _WHITE), _table(_WHITE, _SCALER_WHITE)
