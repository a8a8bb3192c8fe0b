"""What a result is written as, and what of the source it can't keep. Pure."""

from dataclasses import dataclass

from services.common.encoders import named_encoder
from services.common.errors import InvalidOption
from services.common.formats import PICTURES, SEQUENCE, VIDEOS
from services.common.pixels import PICTURE_ENCODER, PIXEL_FORMATS, pixel_format
from services.gateway.source import ARCHIVE, OtherStream, SourceInfo

# What players, browsers above all, take from an MP4.
_MP4_CODECS = frozenset({"aac", "mp3", "ac3", "eac3", "opus", "flac", "alac", "mov_text"})
_NOT_IN_MKV = frozenset({"mov_text"})
_HDR_TRANSFERS = frozenset({16, 18})
_PICTURE_OF = {"jpeg_pipe": "jpg", "webp_pipe": "webp", "tiff_pipe": "tiff"}
"""Formats of a picture's result by the source's demuxer; others become a PNG."""

_DEEP, _TRANSPARENT = frozenset({"png", "tiff", SEQUENCE}), frozenset({"png", "webp", "tiff", SEQUENCE})
"""Formats of pictures with more than 8 bits a sample, and with transparency."""

# A segment is held in memory as a whole; frames are compressed, but noise is not.
_SEGMENT_BYTES = 64 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """The form of a result."""

    container: str
    """One of FORMATS."""

    pixel_format: str
    """One of PIXEL_FORMATS: what segments are encoded in."""

    encoder: str
    """Of the segments, by FFmpeg's name."""

    warnings: tuple[str, ...] = ()
    """What of the source it doesn't keep as it is."""

    @property
    def size_step(self) -> int:
        """Sides of the result are multiples of this."""
        return 1 if self.encoder == PICTURE_ENCODER else 2

    def segment_frames(self, width: int, height: int, most: int) -> int:
        """Frames of a segment, at most ``most``; fewer where they are large and compressed without loss."""
        if self.encoder != PICTURE_ENCODER:
            return most
        form = PIXEL_FORMATS[self.pixel_format]
        return max(1, min(most, _SEGMENT_BYTES // (width * height * form.channels * form.bits // 8)))


def choose_output(asked: str, info: SourceInfo, frames: int, encoder: str = "") -> Output:
    """The result's form for a request's ``container`` and ``encoder``, which may be empty.

    Raises:
        InvalidOption: what was asked for can't hold the source's streams, or all frames, or has no such encoder.
    """
    found = asked or _fitting(info, frames)
    if found in VIDEOS:
        return _video(asked, info, encoder)
    if encoder:
        raise InvalidOption(
            f"The result is a {found}, which no encoder of videos makes; leave the encoder out, or choose {' or '.join(VIDEOS)}.",
            field="request.encoder",
        )
    return _pictures(found, info, frames)


def _fitting(info: SourceInfo, frames: int) -> str:
    if info.image and frames == 1:
        return _PICTURE_OF.get(info.container, "png")
    return SEQUENCE if info.container == ARCHIVE else VIDEOS[0]


def _pictures(container: str, info: SourceInfo, frames: int) -> Output:
    if container in PICTURES and frames > 1:
        raise InvalidOption(
            f"A {container} holds one picture, and {frames} frames are to be restored; choose zip for a PNG for each frame, "
            "or a range of one frame.",
            field="request.container",
        )
    deep, alpha = info.bits > 8 and container in _DEEP, info.alpha and container in _TRANSPARENT
    warnings = [f"The {s.kind} is not kept: pictures have none." for s in info.others if s.kind in ("audio", "subtitle")]
    if info.alpha and not alpha:
        warnings.append(f"Transparency is not kept: a {container} has none.")
    if info.bits > 8 and not deep:
        warnings.append(f"The result has 8 bits a sample: a {container} has no more.")
    name = pixel_format(PICTURE_ENCODER, deep=deep, alpha=alpha)
    return Output(container=container, pixel_format=name, encoder=PICTURE_ENCODER, warnings=(*_source_warnings(info), *warnings))


def _video(asked: str, info: SourceInfo, encoder: str) -> Output:
    container, warnings = _choose_container(asked, info)
    if info.alpha:
        text = f"Transparency is not kept: a {container} can't hold it here; choose zip for a PNG for each frame."
        warnings = (*warnings, text)
    if info.bits > 8:
        warnings = (*warnings, "The result has 10 bits a sample, which not every browser plays.")
    named = named_encoder(encoder)
    name = named.deep if info.bits > 8 else named.shallow
    return Output(
        container=container, pixel_format=pixel_format(name, deep=info.bits > 8), encoder=name,
        warnings=(*_source_warnings(info), *warnings),
    )  # fmt: skip


def _choose_container(asked: str, info: SourceInfo) -> tuple[str, tuple[str, ...]]:
    wanted = [s for s in info.others if s.kind in ("audio", "subtitle")]
    fits = {name: [s for s in wanted if not _fits(s, name)] for name in VIDEOS}
    container = asked or ("mkv" if fits["mp4"] else "mp4")
    misfits = fits[container]
    if misfits and asked:
        other = "mkv" if container == "mp4" else "mp4"
        raise InvalidOption(
            f"A {container} can't hold the source's {misfits[0].kind} ({misfits[0].codec}); choose {other}, or leave it open.",
            field="request.container",
        )
    lost = [s for s in info.others if s in misfits or not kept(s, container)]
    warnings = [f"A {s.kind} stream ({s.codec or 'unknown'}) is not kept: a {container} can't hold it here." for s in lost]
    if container == "mkv" and (1000 * info.time_base).denominator != 1:
        warnings.append("Time stamps are rounded to milliseconds, because an mkv stores no finer ones.")
    return container, tuple(warnings)


def kept(stream: OtherStream, container: str) -> bool:
    """Whether a stream is copied into the result."""
    if container not in VIDEOS:
        return False
    if stream.kind == "attachment":
        return container == "mkv"
    return stream.kind in ("audio", "subtitle") and _fits(stream, container)


def _fits(stream: OtherStream, container: str) -> bool:
    return stream.codec in _MP4_CODECS if container == "mp4" else bool(stream.codec) and stream.codec not in _NOT_IN_MKV


def _source_warnings(info: SourceInfo) -> tuple[str, ...]:
    warnings = []
    if info.interlaced:
        warnings.append("The video is interlaced and is restored as if it was not; deinterlace it first for a better result.")
    if info.codec.colour_transfer in _HDR_TRANSFERS:
        warnings.append("The video is HDR: it is restored as it is coded, and its tags are kept.")
    return tuple(warnings)
