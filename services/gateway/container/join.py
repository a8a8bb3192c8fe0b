"""Segments to one file: packets are copied, time stamps are the source's, and so are sound, subtitles and metadata."""

from __future__ import annotations

import contextlib
import errno
import heapq
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import av
import av.error
from av.container import InputContainer, OutputContainer
from av.packet import Packet
from av.stream import Stream
from av.video.stream import VideoStream

from services.common.channel import Channel
from services.common.errors import InternalError, StoreFull
from services.gateway.container.check import Digests, check
from services.gateway.container.opening import opened, reading

if TYPE_CHECKING:
    from av.container.core import Chapter  # a type of the stubs only

_FORMATS = {"mp4": "mp4", "mkv": "matroska"}
_MAX_TIMESCALE = 2**31 - 1
# They describe the source's file, not its content.
_FILE_TAGS = frozenset({"major_brand", "minor_version", "compatible_brands", "encoder", "duration"})

SegmentPath = Callable[[int], str]


@dataclass(slots=True, kw_only=True)
class _Joining:
    source: InputContainer
    output: OutputContainer
    video: VideoStream
    copies: dict[int, Stream]
    """Streams of the output by index in the source."""

    fields: dict[str, Any]
    time_base: Fraction
    start: Fraction
    """Of the result on the source's clock, seconds."""

    end: Fraction | None
    """The same; None: the source's end."""

    digests: Digests = field(default_factory=Digests)
    last_dts: dict[int, int] = field(default_factory=dict)
    """Of the packets copied so far, by index in the source."""


def join(channel: Channel, fields: dict[str, Any]) -> None:
    """Answer "join" with "segment" {number} whenever a path is needed, "progress" {fraction}, and at last "joined".

    Fields: source, output, container; time_base; pts (of each frame, source clock), last_duration; shift, ticks to subtract;
    end, tick after which other streams are cut, or null; counts, frames of each segment; copied, indices of streams;
    display_matrix.
    """

    def path_of(number: int) -> str:
        channel.send("segment", number=number)
        return str(channel.receive().fields["path"])

    # An archive of pictures has nothing to copy: a segment stands in for it.
    with disk_errors(), opened(path_of(0) if fields["archive"] else fields["source"]) as source:
        delay = _delay(path_of, fields["counts"])
        digests = _write(source, path_of, delay, fields, lambda fraction: channel.send("progress", fraction=fraction))
        channel.send("joined", **check(fields, digests))


@contextlib.contextmanager
def disk_errors() -> Iterator[None]:
    """A full disk is not the file's fault."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFull("There is no space left to write the result; delete what is no longer needed.") from error
        raise InternalError(f"The result can't be written: {error.strerror}.") from error


def ranks(stamps: list[int]) -> list[int]:
    """Position of each packet's frame in presentation order."""
    found = [0] * len(stamps)
    for rank, i in enumerate(sorted(range(len(stamps)), key=stamps.__getitem__)):
        found[i] = rank
    return found


def packets(path: str) -> list[Packet[Any]]:
    with opened(path) as container, reading():
        return [p for p in container.demux(container.streams.video[0]) if p.size and p.pts is not None]


def _delay(path_of: SegmentPath, counts: list[int]) -> int:
    """How many frames decoding is ahead of presentation, at most. Raises InternalError for a segment that isn't whole."""
    delay = 0
    for number, count in enumerate(counts):
        found = packets(path_of(number))
        if len(found) != count or not found[0].is_keyframe:
            raise InternalError(f"segment {number} has {len(found)} of {count} frames", field=str(number))
        delay = max(delay, *(i - rank for i, rank in enumerate(ranks([p.pts or 0 for p in found]))))
    return delay


def _write(
    source: InputContainer, path_of: SegmentPath, delay: int, fields: dict[str, Any], tell: Callable[[float], None]
) -> Digests:
    kind, time_base = fields["container"], Fraction(fields["time_base"])
    copied = [source.streams[i] for i in fields["copied"]]
    output = av.open("file:" + fields["output"], "w", format=_FORMATS[kind], options=_muxer_options(kind, time_base, copied))
    with output:
        first = path_of(0)
        with opened(first) as template:
            video = output.add_stream_from_template(template.streams.video[0])
            video.time_base = time_base
            if kind == "mp4" and template.streams.video[0].codec_context.name == "hevc":
                # Players of Apple know HEVC by this name alone, and it is not copied.
                video.codec_context.codec_tag = "hvc1"
        if fields["display_matrix"]:
            video.set_display_matrix(fields["display_matrix"])
        _copy_tags(source, output, fields, time_base)
        job = _Joining(
            source=source, output=output, video=video, fields=fields, time_base=time_base,
            copies={s.index: _copy_stream(s, output) for s in copied},
            start=fields["shift"] * time_base, end=None if fields["end"] is None else fields["end"] * time_base,
        )  # fmt: skip
        streams = (_video_packets(job, path_of, delay, tell), _copied_packets(job))
        for _, packet in heapq.merge(*streams, key=lambda timed: timed[0]):
            output.mux_one(packet)
    return job.digests


def _muxer_options(kind: str, time_base: Fraction, copied: list[Stream]) -> dict[str, str]:
    if kind == "mkv":
        return {"cues_to_front": "1"}
    bases = [s.time_base for s in copied if s.time_base is not None]
    timescale = time_base.denominator
    # Start offsets are stored in ticks of the whole file; those of every stream should be exact.
    common = math.lcm(timescale, *(b.denominator for b in bases))
    while timescale < 1000:
        timescale *= 2
    return {"movflags": "faststart", "movie_timescale": str(common if 1000 <= common <= _MAX_TIMESCALE else timescale)}


def _copy_stream(stream: Stream, output: OutputContainer) -> Stream:
    copy = output.add_stream_from_template(stream)
    copy.metadata.update({name: value for name, value in stream.metadata.items() if name.lower() not in _FILE_TAGS})
    copy.disposition = stream.disposition
    return copy


def _copy_tags(source: InputContainer, output: OutputContainer, fields: dict[str, Any], time_base: Fraction) -> None:
    output.metadata.update({name: value for name, value in source.metadata.items() if name.lower() not in _FILE_TAGS})
    start = fields["shift"] * time_base
    end = None if fields["end"] is None else fields["end"] * time_base
    chapters: list[Chapter] = []
    for chapter in source.chapters():
        base = chapter["time_base"] or Fraction(1)
        begins, ends = chapter["start"] * base, chapter["end"] * base
        if ends <= start or (end is not None and begins >= end):
            continue
        begins, ends = max(begins, start), ends if end is None else min(ends, end)
        chapter["start"], chapter["end"] = int((begins - start) / base), int((ends - start) / base)
        chapters.append(chapter)
    if fields["container"] == "mp4":
        chapters = _without_gaps(chapters)
    output.set_chapters(chapters)


def _without_gaps(chapters: list[Chapter]) -> list[Chapter]:
    # An MP4's chapters are a track of texts: it begins at 0, and a chapter without a title would not be there.
    if chapters and chapters[0]["start"] > 0:
        chapters.insert(0, {**chapters[0], "start": 0, "end": chapters[0]["start"], "metadata": {}})
    return [{**c, "id": n, "metadata": {"title": str(n), **c["metadata"]}} for n, c in enumerate(chapters, 1)]


def _video_packets(
    job: _Joining, path_of: SegmentPath, delay: int, tell: Callable[[float], None]
) -> Iterator[tuple[Fraction, Packet[Any]]]:
    stamps, begin = job.fields["pts"], 0
    for number, count in enumerate(job.fields["counts"]):
        found = packets(path_of(number))
        for i, (packet, rank) in enumerate(zip(found, ranks([p.pts or 0 for p in found]), strict=True)):
            _stamp(packet, job, begin + i, begin + rank, delay)
            yield _time(packet), packet
        begin += count
        tell(begin / len(stamps))


def _stamp(packet: Packet[Any], job: _Joining, position: int, rank: int, delay: int) -> None:
    stamps, shift = job.fields["pts"], job.fields["shift"]
    last = rank + 1 == len(stamps)
    packet.stream = job.video
    packet.time_base = job.time_base
    packet.pts = stamps[rank] - shift
    packet.dts = _decoding_time(stamps, position - delay) - shift
    packet.duration = job.fields["last_duration"] if last else stamps[rank + 1] - stamps[rank]


def _decoding_time(stamps: list[int], position: int) -> int:
    # Before the first frame time goes on backwards by the first frame's duration.
    step = stamps[1] - stamps[0] if len(stamps) > 1 else 1
    return stamps[position] if position >= 0 else stamps[0] + position * step


def _time(packet: Packet[Any]) -> Fraction:
    stamp = packet.dts if packet.dts is not None else packet.pts
    return (stamp or 0) * packet.time_base


def _copied_packets(job: _Joining) -> Iterator[tuple[Fraction, Packet[Any]]]:
    if not job.copies:
        return
    streams = [job.source.streams[i] for i in job.copies]
    with reading():
        for packet in job.source.demux(*streams):
            if packet.size and _inside(packet, job):
                job.digests.add(packet.stream_index, packet)
                copy = _moved(packet, job)
                yield _time(copy), copy


def _inside(packet: Packet[Any], job: _Joining) -> bool:
    if packet.pts is None or packet.is_corrupt:
        return False
    begins = packet.pts * packet.time_base
    # A line of text that is on the screen when the range begins is part of it; half a packet of sound is not.
    ends = begins + (packet.duration or 0) * packet.time_base if _is_text(packet, job) else begins
    if job.fields["cut"] and begins < job.start and ends <= job.start:
        return False
    # An mkv has no negative times: keeping what a player skips anyway would move all the rest.
    if job.fields["container"] == "mkv" and packet.is_discard and begins < job.start:
        return False
    return job.end is None or begins < job.end


def _is_text(packet: Packet[Any], job: _Joining) -> bool:
    return job.source.streams[packet.stream_index].type == "subtitle"


def _clip_text(packet: Packet[Any], job: _Joining) -> None:
    """Show a line of text from the range's first frame to its last one, at most."""
    begins = packet.pts or 0
    ends = begins + (packet.duration or 0)
    if job.fields["cut"]:
        begins = max(begins, math.ceil(job.start / packet.time_base))
    if job.end is not None:
        ends = min(ends, math.floor(job.end / packet.time_base))
    packet.pts = packet.dts = begins
    packet.duration = max(0, ends - begins)


def _moved(packet: Packet[Any], job: _Joining) -> Packet[Any]:
    if packet.duration and _is_text(packet, job):
        _clip_text(packet, job)
    ticks, index = round(job.start / packet.time_base), packet.stream_index
    packet.stream = job.copies[index]
    stamp = packet.dts if packet.dts is not None else packet.pts
    # Muxers refuse a stream whose decoding times stand still.
    dts = max((stamp or 0) - ticks, job.last_dts.get(index, -(2**62)) + 1)
    job.last_dts[index] = dts
    packet.dts, packet.pts = dts, max((packet.pts or 0) - ticks, dts)
    return packet
