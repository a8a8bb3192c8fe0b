"""What a file holds: its streams and, without decoding more than the first frame, its frames."""

from __future__ import annotations

import itertools
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av.error
from av.container import InputContainer
from av.packet import Packet
from av.sidedata.sidedata import Type
from av.stream import Disposition, Stream
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from services.common.channel import Channel
from services.common.errors import InvalidVideo
from services.common.media import CodecParameters
from services.gateway.container.opening import opened, reading, video_stream
from services.gateway.container.tags import picture_tags
from services.gateway.container.zipped import Archive, is_archive
from services.gateway.source import (
    ARCHIVE,
    OtherStream,
    PacketFacts,
    SourceInfo,
    index_fields,
    index_packets,
    info_fields,
    info_from_fields,
)

_PROGRESS_S = 0.25
_MAX_PACKETS = 3_000_000
# Packets that may pass before the first frame appears: reordering and threads delay it, a missing keyframe does too.
_PATIENCE_PACKETS = 300
_IMAGES = ("_pipe",)
_NO_STAMPS = frozenset({"h264", "hevc"})
_OPAQUE = 255
_FIELDS = frozenset({"tt", "bb", "tb", "bt"})


def probe(channel: Channel, fields: dict[str, Any]) -> None:
    """Answer "probe" {path, max_pixels} with "info"."""
    path, max_pixels = fields["path"], fields["max_pixels"]
    if is_archive(path):
        with Archive(path) as archive, archive.opened(0) as picture:
            # The first picture speaks for all.
            info = _oriented(_probed(picture, max_pixels), archive.read(0))
            info = replace(info, container=ARCHIVE, image=False)
    else:
        with opened(path) as container:
            info = _probed(container, max_pixels)
        if info.image:
            info = _oriented(info, Path(path).read_bytes())
    channel.send("info", **info_fields(info))


def _probed(container: InputContainer, max_pixels: int) -> SourceInfo:
    stream = video_stream(container)
    _check_header(stream, max_pixels)
    return _info(container, stream, _first_frame(container, stream))


def index(channel: Channel, fields: dict[str, Any]) -> None:
    """Answer "index" {path, info} with "progress" {fraction} now and then, and "index"."""
    info = info_from_fields(fields["info"])
    with opened(fields["path"]) as container:
        stream = container.streams[info.stream]
        packets: list[PacketFacts] = []
        end_s = info.start_s
        for packet in _watched(container, channel):
            end_s = max(end_s, _end_s(packet))
            if packet.stream_index == stream.index:
                packets.append(_facts(packet))
            if len(packets) > _MAX_PACKETS:
                raise InvalidVideo(f"The video has more than {_MAX_PACKETS} frames; cut it into shorter ones.")
    channel.send("index", **index_fields(index_packets(packets, info, end_s - info.start_s)))


def video_packets(container: InputContainer, stream: Stream) -> Iterator[Packet[Any]]:
    """Packets of one stream in decoding order."""
    with reading():
        yield from (p for p in container.demux(stream) if p.size)


def _check_header(stream: VideoStream, max_pixels: int) -> None:
    width, height = stream.codec_context.width, stream.codec_context.height
    if width * height > max_pixels:
        raise InvalidVideo(
            f"The video is {width}×{height} pixels; at most {max_pixels / 1e6:g} megapixels are restored here. Make it smaller."
        )


def _first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    stream.codec_context.thread_count = 1
    seen = 0
    with reading():
        for packet in itertools.islice(container.demux(stream), _PATIENCE_PACKETS):
            seen += bool(packet.size)
            try:
                frames = stream.codec_context.decode(packet)
            except av.error.FFmpegError:
                # A damaged packet; a later one may be whole.
                continue
            if frames:
                return frames[0]
    if not seen:
        raise InvalidVideo("The file has a video stream without a single frame; send another file.")
    raise InvalidVideo("No frame of the file can be decoded: it is damaged, encrypted or of absurd dimensions. Send another.")


def _info(container: InputContainer, stream: VideoStream, frame: VideoFrame) -> SourceInfo:
    name = container.format.name
    start_s = (container.start_time or 0) / 1e6
    return SourceInfo(
        container=name,
        stream=stream.index,
        codec=_codec(stream, frame),
        time_base=_positive(stream.time_base, Fraction(1, 90000)),
        bits=max(c.bits for c in frame.format.components),
        frames_declared=stream.frames,
        duration_s=(container.duration or 0) / 1e6,
        others=tuple(_other(s) for s in container.streams if s.index != stream.index),
        # AVI stores no presentation times, so those of codecs that reorder are guesses.
        stamped=not (name == "avi" and stream.codec_context.codec.canonical_name in _NO_STAMPS),
        origin_free=name in ("mpegts", "mpeg"),
        start_s=start_s,
        image=name.endswith(_IMAGES),
        alpha=_has_alpha(frame),
        interlaced=frame.interlaced_frame,
        display_matrix=_display_matrix(frame),
    )


def _codec(stream: VideoStream, frame: VideoFrame) -> CodecParameters:
    context = stream.codec_context
    rate = _positive(stream.average_rate or stream.guessed_rate, Fraction(25))
    return CodecParameters(
        codec=context.codec.name,
        extradata=bytes(context.extradata or b""),
        width=frame.width,
        height=frame.height,
        pixel_format=frame.format.name,
        sample_aspect_ratio=_aspect(stream.sample_aspect_ratio),
        colour_primaries=int(frame.color_primaries),
        colour_transfer=int(frame.color_trc),
        colour_matrix=int(frame.colorspace),
        colour_range=int(frame.color_range),
        frame_rate=min(max(rate, Fraction(1)), Fraction(240)).limit_denominator(1001000),
        rotation=round(frame.rotation / 90) * 90 % 360,
    )


def _positive(value: Fraction | None, default: Fraction) -> Fraction:
    return value if value is not None and value > 0 else default


def _aspect(value: Fraction | None) -> Fraction:
    # Outside of this it is damage, not a choice.
    return value if value is not None and Fraction(1, 16) <= value <= 16 else Fraction(1)


def _display_matrix(frame: VideoFrame) -> tuple[int, ...]:
    try:
        side_data: Any = frame.side_data
    except ValueError:
        # PyAV knows not every kind; pictures' EXIF is one of those, and read from their file.
        return ()
    found = side_data.get(Type.DISPLAYMATRIX)
    matrix = struct.unpack("=9i", bytes(found)) if found is not None else ()
    upright = not matrix or (matrix[0] > 0 and matrix[4] > 0)
    return () if upright else matrix


def _oriented(info: SourceInfo, data: bytes) -> SourceInfo:
    tags = picture_tags(data)
    return replace(info, codec=replace(info.codec, rotation=tags.rotation), display_matrix=tags.display_matrix)


def _has_alpha(frame: VideoFrame) -> bool:
    if frame.format.name == "pal8":
        return bool((frame.to_ndarray(format="rgba")[..., 3] < _OPAQUE).any())
    return any(component.is_alpha for component in frame.format.components)


def _other(stream: Stream) -> OtherStream:
    kind = "cover picture" if stream.disposition & Disposition.attached_pic else stream.type
    codec = stream.codec_context.codec.canonical_name if stream.codec_context is not None else ""
    return OtherStream(index=stream.index, kind=kind, codec=codec)


def _watched(container: InputContainer, channel: Channel) -> Iterator[Packet[Any]]:
    size, told = max(1, container.size), time.monotonic()
    with reading():
        for packet in container.demux():
            if not packet.size:
                continue
            if time.monotonic() - told > _PROGRESS_S:
                told = time.monotonic()
                channel.send("progress", fraction=min(1.0, (packet.pos or 0) / size))
            yield packet


def _end_s(packet: Packet[Any]) -> float:
    stamp = packet.pts if packet.pts is not None else packet.dts
    return float((stamp + (packet.duration or 0)) * packet.time_base) if stamp is not None else 0.0


def _facts(packet: Packet[Any]) -> PacketFacts:
    return PacketFacts(
        pts=packet.pts,
        dts=packet.dts,
        duration=packet.duration or 0,
        keyframe=packet.is_keyframe,
        shown=not packet.is_discard,
        corrupt=packet.is_corrupt,
    )
