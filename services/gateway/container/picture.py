"""One frame of a file as a PNG."""

import math
from fractions import Fraction
from typing import Any

import av
import av.error
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from services.common.channel import Channel
from services.common.errors import InvalidVideo, RangeOutOfBounds
from services.gateway.container.opening import opened
from services.gateway.container.read import wanted_packets
from services.gateway.container.turning import turned

MAX_SIDE = 4096
# A message has at most 4 MiB.
_MAX_BYTES = 3 << 20
_BT601_LINES = 720
_UNSPECIFIED = 2
_SHRINK = 0.75


def picture(channel: Channel, fields: dict[str, Any]) -> None:
    """Answer "picture" with "png" {width, height} and the bytes.

    Fields: path, stream; those of "read" for one frame, or order, the frame's number counted from the first one decoded;
    width, height to scale to, 0: as it is; max_side; matrix, how a player turns it.
    """
    with opened(fields["path"]) as container:
        stream = container.streams[fields["stream"]]
        if not isinstance(stream, VideoStream):
            raise InvalidVideo("The file has no video stream there.")
        frame = decoded_picture(container, stream, fields)
    data, width, height = png(frame, fields)
    channel.send("png", data, width=width, height=height)


def decoded_picture(container: Any, stream: VideoStream, fields: dict[str, Any]) -> VideoFrame:
    context = stream.codec_context
    context.thread_count = 1
    count = 0
    frames: list[VideoFrame] = []
    for packet in [*wanted_packets(container, stream, fields), None]:
        try:
            frames = context.decode(packet)
        except av.error.FFmpegError:
            # The worker conceals damaged packets in the same way: the frame before stands in.
            continue
        for frame in frames:
            if fields.get("order") == count or (fields.get("order") is None and frame.pts == fields["first_pts"]):
                return frame
            count += 1
    raise RangeOutOfBounds("That frame can't be decoded.")


def png(frame: VideoFrame, fields: dict[str, Any]) -> tuple[bytes, int, int]:
    """A frame as a PNG of the wanted size, turned, and its width and height."""
    width, height = fields["width"] or frame.width, fields["height"] or frame.height
    side = min(fields["max_side"] or MAX_SIDE, MAX_SIDE)
    factor = min(1.0, side / max(width, height))
    while True:
        size = max(1, round(width * factor)), max(1, round(height * factor))
        rgb = _rgb(frame, *size)
        pixels = turned(rgb.to_ndarray(), fields["matrix"])  # type: ignore[arg-type]  # of this format whole numbers
        data = _encoded(pixels)
        if len(data) <= _MAX_BYTES or max(size) < 64:
            return data, pixels.shape[1], pixels.shape[0]
        factor *= min(_SHRINK, math.sqrt(_MAX_BYTES / len(data)))


def _rgb(frame: VideoFrame, width: int, height: int) -> VideoFrame:
    matrix = int(frame.colorspace)
    if matrix == _UNSPECIFIED:
        matrix = 1 if frame.height >= _BT601_LINES else 5
    form = "rgba" if any(component.is_alpha for component in frame.format.components) else "rgb24"
    return frame.reformat(width, height, form, src_colorspace=matrix, interpolation="BICUBIC")


def _encoded(pixels: Any) -> bytes:
    form = "rgba" if pixels.shape[2] == 4 else "rgb24"
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt = pixels.shape[1], pixels.shape[0], form
    encoder.time_base = Fraction(1, 25)
    frame = VideoFrame.from_ndarray(pixels, form)
    return b"".join(bytes(p) for p in [*encoder.encode(frame), *encoder.encode(None)])
