"""Segments of losslessly encoded frames to a picture, or to a zip with a PNG for each frame."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
from av.video.frame import VideoFrame
from av.video.reformatter import Interpolation

from services.common.channel import Channel
from services.common.errors import InternalError
from services.common.formats import SEQUENCE
from services.gateway.container.join import disk_errors, packets
from services.gateway.container.opening import opened
from services.gateway.container.tags import picture_tags, with_profile
from services.gateway.container.turning import Pixels, turned

_FORMATS = {("u1", 3): "rgb24", ("u1", 4): "rgba", ("u2", 3): "rgb48le", ("u2", 4): "rgba64le"}
_ENCODERS: dict[str, tuple[str, dict[str, str], Callable[[str], str]]] = {
    "png": ("png", {"pred": "mixed"}, lambda name: name.replace("le", "be")),
    # Nearly without loss, and colours at full resolution.
    "jpg": ("mjpeg", {"qmin": "1", "qmax": "1", "huffman": "optimal"}, lambda _: "yuvj444p"),
    "webp": ("libwebp", {"lossless": "1"}, lambda _: "bgra"),
    "tiff": ("tiff", {"compression_algo": "deflate"}, lambda name: name),
}
"""FFmpeg's encoder, its options and its pixel format for one of ours, by format."""

_DEMUXERS = {"png": "png_pipe", "jpg": "jpeg_pipe", "webp": "webp_pipe", "tiff": "tiff_pipe"}
_FULL, _BT601 = 2, 5
_EXACT = Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INP | Interpolation.BITEXACT


def pictures(channel: Channel, fields: dict[str, Any]) -> None:
    """Answer "pictures" as "join" is answered, whose fields these are: container is png, jpg, webp, tiff or zip."""

    def path_of(number: int) -> str:
        channel.send("segment", number=number)
        return str(channel.receive().fields["path"])

    matrix = fields["display_matrix"]
    profile = picture_tags(Path(fields["source"]).read_bytes()).profile if fields["image"] else b""
    found = _frames(path_of, fields["counts"])
    with disk_errors():
        if fields["container"] == SEQUENCE:
            shape = _write_archive(fields, found, matrix, lambda fraction: channel.send("progress", fraction=fraction))
        else:
            shape = _write_picture(fields, next(found), matrix, profile)
    channel.send("joined", **_joined(fields, shape))


def _frames(path_of: Callable[[int], str], counts: list[int]) -> Iterator[bytes]:
    """Each frame as a PNG. Raises InternalError for a segment that isn't whole."""
    for number, count in enumerate(counts):
        whole = packets(path_of(number))
        if len(whole) != count:
            raise InternalError(f"segment {number} has {len(whole)} of {count} frames", field=str(number))
        yield from map(bytes, whole)


def _write_archive(
    fields: dict[str, Any], frames: Iterator[bytes], matrix: list[int], tell: Callable[[float], None]
) -> tuple[int, int]:
    """The size of the pictures, (height, width)."""
    total = sum(fields["counts"])
    size = (0, 0)
    with zipfile.ZipFile(fields["output"], "w", zipfile.ZIP_STORED) as archive:
        for number, data in enumerate(frames):
            picture = data
            if matrix:
                picture = _encoded(turned(_pixels(data), matrix), "png")
            size = _png_size(picture)
            # A time stamp of now would make results of equal jobs differ.
            archive.writestr(zipfile.ZipInfo(f"{number + 1:06d}.png"), picture)
            tell((number + 1) / total)
    return size


def _write_picture(fields: dict[str, Any], data: bytes, matrix: list[int], profile: bytes) -> tuple[int, int]:
    kind = fields["container"]
    pixels = turned(_pixels(data), matrix)
    encoded = data if kind == "png" and not matrix else _encoded(pixels, kind)
    Path(fields["output"]).write_bytes(with_profile(encoded, kind, profile) if profile else encoded)
    return pixels.shape[0], pixels.shape[1]


def _pixels(data: bytes) -> Pixels:
    decoder: Any = av.CodecContext.create("png", "r")
    frames = [*decoder.decode(av.Packet(data)), *decoder.decode(None)]
    frame: VideoFrame = frames[0]
    array: Pixels = frame.reformat(format=frame.format.name.replace("be", "le")).to_ndarray()  # type: ignore[assignment]
    return array


def _encoded(pixels: Pixels, kind: str) -> bytes:
    name, options, form = _ENCODERS[kind]
    source = _FORMATS[pixels.dtype.str[1:], pixels.shape[2]]
    frame = VideoFrame.from_ndarray(pixels, source)
    matrix = {"dst_colorspace": _BT601} if kind == "jpg" else {}
    frame = frame.reformat(format=form(source), src_color_range=_FULL, dst_color_range=_FULL, interpolation=_EXACT, **matrix)
    encoder: Any = av.CodecContext.create(name, "w")
    encoder.width, encoder.height, encoder.pix_fmt = frame.width, frame.height, form(source)
    encoder.color_range, encoder.time_base, encoder.options = _FULL, Fraction(1, 25), options
    return b"".join(bytes(packet) for packet in [*encoder.encode(frame), *encoder.encode(None)])


def _png_size(data: bytes) -> tuple[int, int]:
    return int.from_bytes(data[20:24], "big"), int.from_bytes(data[16:20], "big")


def _joined(fields: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    path, wanted = fields["output"], len(fields["pts"])
    count = wanted
    if fields["container"] == SEQUENCE:
        with zipfile.ZipFile(path) as archive:
            count, damaged = len(archive.namelist()), archive.testzip()
        readable = damaged is None
    else:
        # By its name FFmpeg would take it for the first one of a series of files.
        with opened(path, format=_DEMUXERS[fields["container"]]) as container:
            frame = next(container.decode(video=0))
        readable = (frame.height, frame.width) == size
    words = f"{count} pictures of {size[1]}x{size[0]} pixels, {wanted} frames in the source's range"
    checks = [
        {"name": "frame_count", "passed": count == wanted, "detail": words, "value": float(count)},
        {"name": "pictures", "passed": readable, "detail": "what was written can be read again", "value": float(count)},
    ]
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return {"frames": count, "checks": checks, "size_bytes": file.seek(0, 2), "sha256": digest}
