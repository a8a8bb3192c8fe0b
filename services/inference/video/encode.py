"""Restored frames to segments: one encoder for each, so that every segment stands alone and can be made again."""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import av
from av.container import OutputContainer
from av.packet import Packet as AvPacket
from av.video.format import VideoFormat
from av.video.stream import VideoStream

from services.common.errors import InternalError
from services.common.media import SpanTask
from services.common.pixels import NVENC_HEVC, VIDEO_ENCODER
from services.common.plan import Segment
from services.inference.video.colour import Frames, FrameWriter, colours_of
from services.inference.video.hardware import told_clearly
from services.inference.video.x264 import repeatable_options

# delay_moov: an edit list then makes up for the encoder's delay, so that time stamps are exact; frag_discont: they count from
# the source's beginning in every segment, as a player that appends segments expects.
_MOVFLAGS = "frag_keyframe+empty_moov+delay_moov+default_base_moof+frag_discont"
# Of ITU-T H.273.
_RGB = 0
_LIMITED, _FULL = 1, 2
_MAX_TIMESCALE = 2**31 - 1

OnSegment = Callable[[Segment, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Stamps:
    """Time stamps of a segment's frames, and how long each is shown."""

    pts: tuple[int, ...]
    durations: dict[int, int]


class SpanEncoder:
    """Takes the restored frames of a span in order, context included, and gives finished segments to ``on_segment``."""

    def __init__(self, task: SpanTask, *, threads: int, on_segment: OnSegment) -> None:
        self._task = task
        self._threads = threads
        self._on_segment = on_segment
        self._writer = FrameWriter(colours_of(task.codec), task.plan.output_pixel_format)
        self._next = task.first_index
        self._segments = iter(task.segments)
        self._segment: Segment | None = next(self._segments, None)
        self._open: _SegmentFile | None = None

    @property
    def complete(self) -> bool:
        """Whether every frame has come."""
        return self._segment is None

    def take(self, pictures: Frames) -> int:
        """Encode (T, H, W, C) frames; returns how many of them belong to the span, context not counted."""
        kept = 0
        for picture in pictures:
            kept += self._take_one(picture)
        return kept

    def _take_one(self, picture: Frames) -> int:
        segment, index = self._segment, self._next
        self._next += 1
        if segment is None or index < segment.first:
            return 0
        if segment.first not in self._task.stored:
            self._encode(segment, index, picture)
        if index + 1 == segment.end:
            self._segment = next(self._segments, None)
        return 1

    def _encode(self, segment: Segment, index: int, picture: Frames) -> None:
        if self._open is None:
            self._open = _SegmentFile(self._task, segment, self._threads)
        self._open.add(self._writer.frame(picture))
        if index + 1 == segment.end:
            data, self._open = self._open.finish(), None
            self._on_segment(segment, data)


class _SegmentFile:
    def __init__(self, task: SpanTask, segment: Segment, threads: int) -> None:
        self._stamps = _stamps(task, segment)
        self._time_base = task.time_base
        self._encoder = task.plan.encoder
        self._buffer = io.BytesIO()
        self._container = _container(self._buffer, task.time_base)
        self._stream = _stream(self._container, task, threads)
        self._count = 0

    def add(self, frame: Any) -> None:
        frame.pts, frame.time_base = self._stamps.pts[self._count], self._time_base
        self._count += 1
        self._mux(self._encoded(frame))

    def finish(self) -> bytes:
        self._mux(self._encoded(None))
        self._container.close()
        return self._buffer.getvalue()

    def _encoded(self, frame: Any) -> list[AvPacket[Any]]:
        with told_clearly(self._encoder):
            return self._stream.encode(frame)

    def _mux(self, packets: list[AvPacket[Any]]) -> None:
        for packet in packets:
            if packet.pts is not None:
                packet.duration = self._stamps.durations[packet.pts]
            self._container.mux(packet)


def _stamps(task: SpanTask, segment: Segment) -> _Stamps:
    first, end = segment.first - task.first_index, segment.end - task.first_index
    pts = task.frame_pts[first:end]
    following = (*task.frame_pts[first + 1 : end + 1], task.frame_pts[-1] + task.last_duration)
    return _Stamps(pts=pts, durations={a: b - a for a, b in zip(pts, following, strict=False)})


def _container(buffer: io.BytesIO, time_base: Fraction) -> OutputContainer:
    options = {"movflags": _MOVFLAGS}
    if time_base.denominator <= _MAX_TIMESCALE:
        options["video_track_timescale"] = str(time_base.denominator)
    return av.open(buffer, "w", format="mp4", options=options)


def _stream(container: OutputContainer, task: SpanTask, threads: int) -> VideoStream:
    plan, colours = task.plan, colours_of(task.codec)
    options = dict(plan.encoder_options) | (repeatable_options() if plan.encoder == VIDEO_ENCODER else {})
    stream = container.add_stream(plan.encoder, rate=task.codec.frame_rate.limit_denominator(1001000), options=options)
    if not isinstance(stream, VideoStream):
        raise InternalError(f"{plan.encoder} encodes no video")
    stream.width, stream.height, stream.pix_fmt = plan.width, plan.height, plan.output_pixel_format
    context = stream.codec_context
    context.time_base = stream.time_base = task.time_base
    context.thread_count = threads
    if plan.encoder == NVENC_HEVC:
        # Players of Apple know HEVC by this name alone.
        context.codec_tag = "hvc1"
    context.sample_aspect_ratio = Fraction(1)
    is_rgb = VideoFormat(plan.output_pixel_format).is_rgb
    context.colorspace, context.color_range = (_RGB, _FULL) if is_rgb else (colours.matrix, _LIMITED)
    context.color_primaries, context.color_trc = colours.primaries, colours.transfer
    return stream
