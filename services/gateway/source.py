"""What the gateway knows of a source: its streams, and its frames by time stamp. Pure."""

import bisect
import itertools
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from fractions import Fraction
from typing import Any

from services.common.errors import InvalidVideo
from services.common.media import CodecParameters
from services.common.records import record_fields

SCHEMA_VERSION = 1
# Other formats' lengths are estimates.
_LENGTH_IN_HEADER = frozenset({"matroska,webm", "avi"})


ARCHIVE = "zip"
"""What :attr:`SourceInfo.container` says of an archive of pictures; other names are FFmpeg's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OtherStream:
    """A stream beside the video."""

    index: int
    """In the file."""

    kind: str
    """audio, subtitle, data, attachment or video."""

    codec: str
    """FFmpeg's name of its codec; may be empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceInfo:
    """What a look at the file says, its packets not counted."""

    container: str
    """FFmpeg's name of the demuxer, or ARCHIVE."""

    stream: int
    """Index of the video stream in the file."""

    codec: CodecParameters
    """Of the video stream."""

    time_base: Fraction
    """Of the video stream, seconds a tick."""

    bits: int
    """Of a sample."""

    frames_declared: int
    """As the container says; 0 where it doesn't."""

    duration_s: float
    """As the container says; 0 where it doesn't."""

    others: tuple[OtherStream, ...]
    """Streams beside it, in the file's order."""

    stamped: bool
    """Whether its packets say when frames are shown; else frames are shown in the order in which they are decoded."""

    origin_free: bool
    """Whether the format's time stamps begin anywhere, as broadcasts do."""

    start_s: float
    """Time of the file's beginning, by its own clock."""

    image: bool
    """A single picture."""

    interlaced: bool
    """Its frames are two fields."""

    alpha: bool = False
    """Its frames have transparency."""

    display_matrix: tuple[int, ...] = ()
    """How a player turns the picture; empty: it doesn't."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PacketFacts:
    """A packet of the video stream, without its data."""

    pts: int | None
    """Presentation time."""

    dts: int | None
    """Decoding time."""

    duration: int
    """0: unknown."""

    keyframe: bool
    """Decoding can start here."""

    shown: bool
    """Its frame is part of the presentation."""

    corrupt: bool
    """The demuxer could read a part of it only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keyframe:
    """A packet at which decoding can start."""

    packet: int
    """Number in decoding order."""

    frame: int
    """Index of its frame."""

    pts: int | None
    """As the packet says."""

    dts: int | None
    """As the packet says."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceIndex:
    """Every frame of a source."""

    pts: tuple[int, ...]
    """Time stamp of each frame in the stream's time base, strictly ascending."""

    last_duration: int
    """Ticks that the last frame is shown."""

    by_order: bool
    """Packets don't say when their frames are shown."""

    keyframes: tuple[Keyframe, ...]
    """In decoding order; the first frame's is the first."""

    warnings: tuple[str, ...] = ()
    """What was wrong with the packets."""

    @property
    def frames(self) -> int:
        """How many there are."""
        return len(self.pts)

    def keyframe_before(self, frame: int) -> Keyframe:
        """Where decoding starts for ``frame``."""
        return self.keyframes[max(0, bisect.bisect_right(self.keyframes, frame, key=lambda k: k.frame) - 1)]

    def keyframe_after(self, frame: int) -> Keyframe | None:
        """The first keyframe at or after ``frame``; None where there is none."""
        found = bisect.bisect_left(self.keyframes, frame, key=lambda k: k.frame)
        return self.keyframes[found] if found < len(self.keyframes) else None

    def end_of(self, frame: int) -> int:
        """Time stamp at which ``frame`` is shown no more."""
        return self.pts[frame + 1] if frame + 1 < self.frames else self.pts[frame] + self.last_duration


def index_packets(packets: Sequence[PacketFacts], info: SourceInfo, length_s: float) -> SourceIndex:
    """Frames of a stream from its packets in decoding order; the file's packets of all streams end after ``length_s``.

    Raises:
        InvalidVideo: there is no frame, or time goes back.
    """
    usable = _without_broken_end(packets)
    first = next((i for i, p in enumerate(usable) if p.keyframe), None)
    if first is None:
        raise InvalidVideo("The file has a video stream without a single frame that can be decoded; send another file.")
    _check_order(usable, info.time_base)
    warnings = _early_end(len(usable), info, length_s)
    step = _usual_step(usable, info)
    found = _by_order(usable, first, step) if _unordered(usable, info) else _by_stamp(usable, first, step)
    shown = sum(p.shown for p in usable)
    if len(found.pts) < shown:
        warnings.append(
            f"{shown - len(found.pts)} frames before the first keyframe can't be decoded; the result begins after them."
        )
    return SourceIndex(
        pts=found.pts,
        last_duration=found.last_duration,
        by_order=found.by_order,
        keyframes=found.keyframes,
        warnings=(*warnings, *found.warnings),
    )


def _without_broken_end(packets: Sequence[PacketFacts]) -> Sequence[PacketFacts]:
    end = len(packets)
    while end and packets[end - 1].corrupt:
        end -= 1
    return packets[:end]


def _early_end(packets: int, info: SourceInfo, length_s: float) -> list[str]:
    if packets < info.frames_declared and "mp4" in info.container:
        return [f"The file ends early: {packets} of {info.frames_declared} frames are there, and these are restored."]
    if info.container in _LENGTH_IN_HEADER and length_s < info.duration_s - max(0.5, 0.01 * info.duration_s):
        return [f"The file ends early: {length_s:.1f} of {info.duration_s:.1f} s are there, and these are restored."]
    return []


def _check_order(packets: Sequence[PacketFacts], time_base: Fraction) -> None:
    stamps = [p.dts for p in packets if p.dts is not None]
    if any((b - a) * time_base < -1 for a, b in itertools.pairwise(stamps)):
        raise InvalidVideo("The file's clock jumps back in the middle; rewrite it with continuous time stamps and send it again.")


def _unordered(packets: Sequence[PacketFacts], info: SourceInfo) -> bool:
    stamps = [p.pts for p in packets if p.shown and p.pts is not None]
    complete = len(stamps) == sum(p.shown for p in packets)
    return not info.stamped or not complete or len(set(stamps)) < len(stamps)


def _usual_step(packets: Sequence[PacketFacts], info: SourceInfo) -> int:
    durations = sorted(p.duration for p in packets if p.duration > 0)
    return durations[len(durations) // 2] if durations else max(1, round(1 / info.codec.frame_rate / info.time_base))


def _by_stamp(packets: Sequence[PacketFacts], first: int, step: int) -> SourceIndex:
    begin = packets[first].pts
    shown = [p for p in packets[first:] if p.shown and p.pts is not None and (begin is None or p.pts >= begin)]
    if not shown:
        raise InvalidVideo("The file has a video stream, but none of its frames is shown; send another file.")
    stamps = sorted(p.pts for p in shown if p.pts is not None)
    last = max(shown, key=lambda p: p.pts if p.pts is not None else 0)
    keyframes = [
        Keyframe(packet=i, frame=bisect.bisect_left(stamps, p.pts), pts=p.pts, dts=p.dts)
        for i, p in enumerate(packets)
        if i >= first and p.keyframe and p.pts is not None
    ]
    return SourceIndex(pts=tuple(stamps), last_duration=last.duration or step, by_order=False, keyframes=_ascending(keyframes))


def _ascending(keyframes: Sequence[Keyframe]) -> tuple[Keyframe, ...]:
    # A keyframe shown before an earlier one of the stream can't be a place to start.
    highest = list(itertools.accumulate((k.frame for k in keyframes), max))
    return tuple(k for k, high in zip(keyframes, highest, strict=True) if k.frame == high)


def _by_order(packets: Sequence[PacketFacts], first: int, step: int) -> SourceIndex:
    kept = [p for p in packets[first:] if p.shown]
    if not kept:
        raise InvalidVideo("The file has a video stream, but none of its frames is shown; send another file.")
    stamps = [p.pts for p in kept if p.pts is not None]
    if len(stamps) < len(kept):
        stamps = [p.dts for p in kept if p.dts is not None]
    warnings: tuple[str, ...] = ()
    if len(stamps) < len(kept):
        stamps = [step * i for i in range(len(kept))]
    elif len(set(stamps)) < len(stamps):
        warnings = ("Some frames have the same time stamp; they are shown one tick after each other.",)
    frames = itertools.accumulate(p.shown for p in packets[first:])
    keyframes = tuple(
        Keyframe(packet=i, frame=count - 1, pts=p.pts, dts=p.dts)
        for i, (p, count) in enumerate(zip(packets[first:], frames, strict=True), first)
        if p.keyframe and p.shown
    )
    return SourceIndex(
        pts=_strictly_ascending(sorted(stamps)), last_duration=kept[-1].duration or step, by_order=True, keyframes=keyframes,
        warnings=warnings,
    )  # fmt: skip


def _strictly_ascending(stamps: Sequence[int]) -> tuple[int, ...]:
    found: list[int] = []
    for stamp in stamps:
        found.append(stamp if not found else max(stamp, found[-1] + 1))
    return tuple(found)


def index_to_json(index: SourceIndex) -> bytes:
    """The stored form of an index."""
    return json.dumps({"schema_version": SCHEMA_VERSION, **index_fields(index)}).encode()


def index_from_json(data: bytes) -> SourceIndex:
    """Read :func:`index_to_json` back.

    Raises:
        NewerRelease: a later release wrote it.
        ValueError: not an index.
    """
    return index_from_fields(record_fields(data, SCHEMA_VERSION, "an index"))


def index_fields(index: SourceIndex) -> dict[str, Any]:
    """As values that JSON can carry."""
    return {
        "pts": index.pts,
        "last_duration": index.last_duration,
        "by_order": index.by_order,
        "keyframes": [[k.packet, k.frame, k.pts, k.dts] for k in index.keyframes],
        "warnings": index.warnings,
    }


def index_from_fields(fields: dict[str, Any]) -> SourceIndex:
    """Read :func:`index_fields` back."""
    keyframes = tuple(Keyframe(packet=a, frame=b, pts=c, dts=d) for a, b, c, d in fields["keyframes"])
    return SourceIndex(
        pts=tuple(fields["pts"]),
        last_duration=fields["last_duration"],
        by_order=fields["by_order"],
        keyframes=keyframes,
        warnings=tuple(fields["warnings"]),
    )


def info_fields(info: SourceInfo) -> dict[str, Any]:
    """As values that JSON can carry."""
    codec = asdict(info.codec)
    codec |= {
        "extradata": info.codec.extradata.hex(),
        "sample_aspect_ratio": str(info.codec.sample_aspect_ratio),
        "frame_rate": str(info.codec.frame_rate),
        "side_data": {name: data.hex() for name, data in info.codec.side_data.items()},
    }
    return {**asdict(info), "codec": codec, "time_base": str(info.time_base)}


def info_from_fields(fields: dict[str, Any]) -> SourceInfo:
    """Read :func:`info_fields` back."""
    codec = dict(fields["codec"])
    codec |= {
        "extradata": bytes.fromhex(codec["extradata"]),
        "sample_aspect_ratio": Fraction(codec["sample_aspect_ratio"]),
        "frame_rate": Fraction(codec["frame_rate"]),
        "side_data": {name: bytes.fromhex(data) for name, data in codec["side_data"].items()},
    }
    parts = {
        "codec": CodecParameters(**codec),
        "time_base": Fraction(fields["time_base"]),
        "others": tuple(OtherStream(**o) for o in fields["others"]),
        "display_matrix": tuple(fields["display_matrix"]),
    }
    return SourceInfo(**{**fields, **parts})
