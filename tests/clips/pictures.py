"""Pictures of every kind, made with PyAV, and what such files hold."""

import io
import struct
import zipfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.frame import VideoFrame

_KINDS: dict[str, tuple[str, dict[str, str]]] = {
    ".png": ("png", {}),
    ".jpg": ("mjpeg", {"qmin": "1", "qmax": "1"}),
    ".webp": ("libwebp", {"lossless": "1"}),
    ".tiff": ("tiff", {}),
}
_FORMATS = {(np.uint8, 3): "rgb24", (np.uint8, 4): "rgba", (np.uint16, 3): "rgb48le", (np.uint16, 4): "rgba64le"}


def scene(number: int = 0, width: int = 85, height: int = 61) -> np.ndarray:
    """(height, width, 3) 8-bit: soft colours with an edge, another place for each number."""
    y, x = np.mgrid[0:height, 0:width]
    picture = np.stack([60 + x, 200 - x - y, 60 + 2 * y], axis=-1).clip(0, 255).astype(np.uint8)
    picture[height // 3 : height // 2, 10 + number : 40 + number] = (230, 220, 40)
    return picture


def with_alpha(picture: np.ndarray) -> np.ndarray:
    """The picture, opaque in its middle and transparent around."""
    alpha = np.zeros((*picture.shape[:2], 1), picture.dtype)
    height, width = picture.shape[:2]
    alpha[height // 4 : -height // 4, width // 4 : -width // 4] = np.iinfo(picture.dtype).max
    return np.concatenate([picture, alpha], axis=-1)


def encoded(picture: np.ndarray, suffix: str) -> bytes:
    """A file of the kind that the suffix names."""
    codec, options = _KINDS[suffix]
    source = _FORMATS[picture.dtype.type, picture.shape[2]]
    pixel_format = {"png": source.replace("le", "be"), "mjpeg": "yuvj444p", "libwebp": "bgra", "tiff": source}[codec]
    frame = VideoFrame.from_ndarray(picture, source).reformat(format=pixel_format, src_color_range=2, dst_color_range=2)
    encoder: Any = av.CodecContext.create(codec, "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, pixel_format
    encoder.time_base, encoder.color_range, encoder.options = Fraction(1, 25), 2, options
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def decoded(data: bytes) -> np.ndarray:
    """(H, W, 3 or 4), as deep as the file."""
    with av.open(io.BytesIO(data)) as container:
        frame = next(container.decode(video=0))
    alpha = any(component.is_alpha for component in frame.format.components)
    deep = max(component.bits for component in frame.format.components) > 8
    form = {(False, False): "rgb24", (False, True): "rgb48le", (True, False): "rgba", (True, True): "rgba64le"}[alpha, deep]
    return frame.reformat(format=form, src_color_range=2, dst_color_range=2).to_ndarray()


def tagged_jpeg(picture: np.ndarray, orientation: int, profile: bytes) -> bytes:
    """A JPEG as cameras write it: EXIF with an orientation, and a colour profile."""
    exif = b"Exif\0\0II*\0" + struct.pack("<IHHHIHHI", 8, 1, 0x0112, 3, 1, orientation, 0, 0)
    parts = [(0xE1, exif), (0xE2, b"ICC_PROFILE\0\x01\x01" + profile)]
    segments = [bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in parts]
    data = encoded(picture, ".jpg")
    return data[:2] + b"".join(segments) + data[2:]


def transparent_video(path: Path, codec: str, pixel_format: str, frames: int = 5) -> Path:
    """A video whose frames are opaque in their middle only."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream(codec, rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, pixel_format
        for number in range(frames):
            frame = VideoFrame.from_ndarray(with_alpha(scene(number, 64, 48)), "rgba").reformat(format=pixel_format)
            frame.pts, frame.time_base = number, Fraction(1, 25)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def zipped(path: Path, pictures: Sequence[bytes], suffix: str = ".png") -> Path:
    """A zip of pictures numbered from 8, so that names sort otherwise than numbers."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, data in enumerate(pictures, 8):
            archive.writestr(f"frames/f{number}{suffix}", data)
    return path
