"""Real clips made with PyAV, taken apart as a gateway would, and spans of them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.frame import VideoFrame
from numpy.typing import NDArray

from services.common.media import CodecParameters, Packet, SpanTask
from services.common.plan import NOISE, RestorePlan, Segment

BUNNY = Path(__file__).parents[2] / "clips" / "bunny_noisy.mp4"
TIME_BASE = Fraction(1, 12800)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """A video stream, taken apart."""

    codec: CodecParameters
    time_base: Fraction
    packets: tuple[Packet, ...]
    stamps: tuple[int, ...]
    pictures: tuple[NDArray[np.uint8], ...]
    """RGB as FFmpeg makes it, to compare with."""


def pattern(index: int, width: int, height: int, top: int = 255) -> NDArray[np.uint16]:
    """(height, width, 3): smooth colours that move, a different picture for each index; one colour where it is large."""
    if width * height > 1 << 20:
        return np.full((height, width, 3), top * (index + 2) // 9, np.uint16)
    y, x = np.mgrid[0:height, 0:width]
    waves = [np.sin(x / 17 + index / 3 + c) + np.cos(y / 11 - index / 5 + 2 * c) for c in range(3)]
    return np.round(np.stack([(w + 2) / 4 * 0.7 + 0.15 for w in waves], axis=-1) * top).astype(np.uint16)


def make_clip(
    *, frames: int = 12, width: int = 96, height: int = 64, codec: str = "libx264", pixel_format: str = "yuv420p",
    stamps: Sequence[int] | None = None, time_base: Fraction = TIME_BASE, container: str = "mp4",
    options: dict[str, str] | None = None, colour: tuple[int, int, int, int] = (2, 2, 2, 1),
) -> bytes:  # fmt: skip
    """A file. ``colour``: primaries, transfer, matrix, range, and the samples are made with that matrix and range."""
    buffer = io.BytesIO()
    primaries, transfer, matrix, colour_range = colour
    deep = "10" in pixel_format
    with av.open(buffer, "w", format=container) as output:
        stream = output.add_stream(codec, rate=Fraction(25), options=options or {"crf": "8", "bf": "2", "g": "250"})
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        context = stream.codec_context
        context.time_base = stream.time_base = time_base
        context.thread_count = 1
        context.color_primaries, context.color_trc = primaries, transfer
        context.colorspace, context.color_range = matrix, colour_range
        for i in range(frames):
            picture = pattern(i, width, height, 65535) if deep else pattern(i, width, height).astype(np.uint8)
            rgb = VideoFrame.from_ndarray(picture, "rgb48le" if deep else "rgb24")
            frame = rgb.reformat(
                format=pixel_format, dst_colorspace=5 if matrix == 2 else matrix, src_color_range=2, dst_color_range=colour_range,
                interpolation="BICUBIC",
            )  # fmt: skip
            frame.pts, frame.time_base = stamps[i] if stamps else i * 512, time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return buffer.getvalue()


def read_clip(data: bytes) -> Clip:
    """Take a file apart."""
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        first = next(container.decode(stream))
        codec = CodecParameters(
            codec=stream.codec_context.codec.name, extradata=bytes(stream.codec_context.extradata or b""), width=first.width,
            height=first.height, pixel_format=first.format.name, colour_primaries=int(first.color_primaries),
            colour_transfer=int(first.color_trc), colour_matrix=int(first.colorspace), colour_range=int(first.color_range),
            frame_rate=Fraction(25),
        )  # fmt: skip
    with av.open(io.BytesIO(data)) as container:
        stream = container.streams.video[0]
        packets = tuple(_packet(p) for p in container.demux(stream) if p.size)
        assert stream.time_base is not None
        time_base = stream.time_base
    stamps, pictures = zip(*((f.pts, f.to_ndarray(format="rgb24")) for f in decoded(data)), strict=True)
    return Clip(codec=codec, time_base=time_base, packets=packets, stamps=stamps, pictures=pictures)


def decoded(data: bytes) -> Iterator[VideoFrame]:
    """Every frame of a file."""
    with av.open(io.BytesIO(data)) as container:
        yield from container.decode(video=0)


def task_for(
    clip: Clip, *, first: int = 0, end: int | None = None, context: int = 0, segment_frames: int = 4, preview: bool = False,
    stored: Sequence[int] = (), by_order: bool = False, cuts: Sequence[int] = (), plan: RestorePlan | None = None,
) -> SpanTask:  # fmt: skip
    """The span [first, end) of a clip."""
    stop = len(clip.stamps) if end is None else end
    return SpanTask(
        job_id="job", span=0, request_id="request", codec=clip.codec, time_base=clip.time_base, first_index=first - context,
        frame_pts=clip.stamps[first - context : stop], last_duration=512, by_order=by_order, context_frames=context,
        segments=tuple(Segment(first=a, end=min(a + segment_frames, stop)) for a in range(first, stop, segment_frames)),
        stored=frozenset(stored), plan=plan or plan_for(clip), stall_timeout_s=60.0, preview=preview,
        cuts=tuple(cuts),
    )  # fmt: skip


def plan_for(clip: Clip, **changes: object) -> RestorePlan:
    """A plan that keeps the clip's size."""
    plan = RestorePlan(
        model="nano", model_hash="hash", fingerprint="fingerprint", dtype="float32", weight_format="float32",
        width=clip.codec.width, height=clip.codec.height, seed=1, noise=NOISE,
        encoder_options=(("crf", "14"), ("preset", "veryfast")),
        output_pixel_format="yuv420p10le" if "10" in clip.codec.pixel_format else "yuv420p",
    )  # fmt: skip
    return replace(plan, **changes)  # type: ignore[arg-type]


def _packet(packet: av.Packet) -> Packet:
    return Packet(pts=packet.pts, dts=packet.dts, duration=packet.duration or 0, keyframe=packet.is_keyframe, data=bytes(packet))
