"""Where shots begin: FFmpeg's scene change detection (its filter scdet) over small pictures."""

from __future__ import annotations

import time
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av.error
from av.container import InputContainer
from av.filter import Graph
from av.video.format import VideoFormat
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from av.video.stream import VideoStream

from services.common.channel import Channel
from services.common.errors import InvalidVideo
from services.gateway.container.opening import opened
from services.gateway.container.read import wanted_packets

# Of 100; FFmpeg's own choice is 10. Shots between real cuts scored 0.6 to 6.3, cuts 3.7 to 51: a cut that is missed costs the
# next shot's first frames decibels, one that is none costs nothing that can be measured.
_THRESHOLD = 5.0
_AFTER_ONE_FRAME = 2 * _THRESHOLD
_WIDTH, _HEIGHT = 128, 72
_PROGRESS_S = 0.25
# Frames may change their size on the way, but not to one that eats all memory; as for the worker's decoder.
_MAX_GROWTH, _SMALL_PIXELS = 4, 1 << 20


def cuts(channel: Channel, fields: dict[str, Any]) -> None:
    """Answer "cuts" with "cut" {at} for each frame that begins a shot, "progress" {at} now and then, and "end".

    Fields: path, stream, pixels (of a frame, as probed); those of "read" for the frames to look at, the first of which is a cut
    for nobody; or first_number, that frame's number, where packets have no usable time stamps. ``at`` is a time stamp, or the
    number of a frame, both as decoded.
    """
    with opened(fields["path"]) as container:
        stream = container.streams[fields["stream"]]
        if not isinstance(stream, VideoStream):
            raise InvalidVideo("The file has no video stream there.")
        detector, told = Detector(), time.monotonic()
        for at, frame in _wanted(container, stream, fields):
            if detector.begins_shot(frame):
                channel.send("cut", at=at)
            if time.monotonic() - told > _PROGRESS_S:
                told = time.monotonic()
                channel.send("progress", at=at)
    channel.send("end")


def _wanted(container: InputContainer, stream: VideoStream, fields: dict[str, Any]) -> Iterator[tuple[int, VideoFrame]]:
    counted = fields.get("first_number")
    for number, frame in enumerate(_decoded(container, stream, fields)):
        if counted is not None:
            if number >= counted:
                yield number, frame
        elif frame.pts is not None and fields["first_pts"] <= frame.pts <= fields["last_pts"]:
            yield frame.pts, frame


def _decoded(container: InputContainer, stream: VideoStream, fields: dict[str, Any]) -> Iterator[VideoFrame]:
    context = stream.codec_context
    context.thread_count = 1
    # Blocks that are not smoothed look the same at this size, and take a sixth less time.
    context.options = {"skip_loop_filter": "all", "max_pixels": str(max(_MAX_GROWTH * fields["pixels"], _SMALL_PIXELS))}
    for packet in wanted_packets(container, stream, fields):
        try:
            yield from context.decode(packet)
        except av.error.FFmpegError:
            # A damaged packet; the frames around it are looked at all the same.
            continue
    try:
        yield from context.decode(None)
    except av.error.FFmpegError:
        return


class Detector:
    """Compares each frame with the one before it."""

    def __init__(self) -> None:
        self._scaler = VideoReformatter()
        self._graph = Graph()
        base = Fraction(1, 1000)
        source = self._graph.add_buffer(width=_WIDTH, height=_HEIGHT, format=VideoFormat("rgb24"), time_base=base)
        self._graph.link_nodes(source, self._graph.add("scdet", f"threshold={_THRESHOLD}"), self._graph.add("buffersink"))
        self._graph.configure()
        self._count = 0
        self._cut_before = False

    def begins_shot(self, frame: VideoFrame) -> bool:
        """Whether a shot begins with ``frame``; False for the first one."""
        small = self._scaler.reformat(frame, _WIDTH, _HEIGHT, "rgb24", interpolation="AREA", threads=1)
        small.pts, small.time_base = self._count, Fraction(1, 1000)
        self._count += 1
        self._graph.push(small)
        found = self._graph.pull().metadata
        # The filter names the time of frames whose score passes the threshold. A score is the difference to the frame before,
        # less the one before that: so after a shot of one frame, or a flash, it is the difference itself that tells.
        passes = "lavfi.scd.time" in found
        cut = passes or (self._cut_before and float(found["lavfi.scd.mafd"]) >= _AFTER_ONE_FRAME)
        self._cut_before = passes
        return cut and self._count > 1
