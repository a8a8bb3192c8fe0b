"""How a video is cut and joined: plan, spans, segments. Pure: no files, no network, no pixels.

A plan is written once for a job and never changes; a span's result is a function of the source frames, the plan and the
seed, so a retry on another worker gives the same bytes.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from services.common.colours import COLOURS
from services.common.records import record_fields, require_known

SCHEMA_VERSION = 1

NOISE = "per-latent-sha256-v1"
"""How noise is drawn: for each latent, from the seed and the source index of its last frame."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """Restored frames [first, end), encoded together; the unit that is stored."""

    first: int
    """Source index of its first frame, a keyframe of the result."""

    end: int
    """Source index after its last frame."""

    @property
    def name(self) -> str:
        """Object name under the span's key."""
        return f"{self.first:08d}-{self.end:08d}.mp4"


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Consecutive source frames [first, end) that one worker restores in order; the unit of dispatch and retry."""

    index: int
    """Position in the plan, from 0."""

    first: int
    """Source index of the first frame that is kept."""

    end: int
    """Source index after the last one."""

    context: int
    """Frames before ``first`` that only warm the state up; 0 after a cut."""

    segments: tuple[Segment, ...]
    """Cuts of the restored frames, in order, covering [first, end)."""

    cuts: tuple[int, ...] = ()
    """Source indices inside (first, end), ascending, of frames that begin a shot: it is restored as if it stood alone."""

    @property
    def frames(self) -> int:
        """Frames kept."""
        return self.end - self.first


@dataclass(frozen=True, slots=True, kw_only=True)
class RestorePlan:
    """All that decides the pixels of a span besides its frames. Sent to the worker as it is."""

    model: str
    """Name in the model list."""

    model_hash: str
    """Of the weights that must be loaded."""

    fingerprint: str
    """Of the workers that may restore it."""

    dtype: str
    """Compute type, for example float32."""

    weight_format: str
    """How the weights are stored, for example float16."""

    width: int
    """Output width in pixels."""

    height: int
    """Output height in pixels."""

    seed: int
    """Of the noise."""

    noise: str = NOISE
    """How noise is drawn from the seed."""

    colour: str = COLOURS[0]
    """Colour transfer from the source; one of COLOURS."""

    input_noise: float = 0.0
    """Noise added to the frames before they are encoded, 0 to 1."""

    latent_noise: float = 0.0
    """How far the model is made to distrust its input, 0 to 1."""

    steps: int = 1
    """From noise to the result."""

    window_latents: int = 0
    """Latents that the transformer takes at a time."""

    overlap_latents: int = 0
    """Latents that consecutive windows share."""

    tile_size: int = 0
    """Side of a VAE tile in pixels; 0: not tiled."""

    tile_overlap: int = 0
    """Pixels that neighbouring tiles share."""

    encoder: str = "libx264"
    """FFmpeg's name of the encoder."""

    encoder_options: tuple[tuple[str, str], ...] = ()
    """Its options, sorted by name."""

    output_pixel_format: str = "yuv420p"
    """FFmpeg's name of the encoded pixel format."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A job's plan."""

    source_sha256: str
    """Of the source file."""

    source_width: int
    """Pixels, as stored."""

    source_height: int
    """Pixels, as stored."""

    first: int
    """Source index of the job's first frame."""

    end: int
    """Source index after its last frame."""

    restore: RestorePlan
    """What decides the pixels."""

    spans: tuple[Span, ...]
    """In order, covering [first, end)."""

    container: str
    """One of FORMATS."""

    pool: str = ""
    """Pool that restores it; empty: any."""

    schema_version: int = SCHEMA_VERSION
    """Of this record."""

    @property
    def frames(self) -> int:
        """Frames of the result."""
        return self.end - self.first

    @property
    def segments(self) -> tuple[Segment, ...]:
        """All segments, in order."""
        return tuple(segment for span in self.spans for segment in span.segments)

    def span_key(self, span: Span) -> str:
        """Where the span's segments are stored: equal for equal source, frames and plan, whatever the job.

        Segments of earlier releases are found by it: a field that is added must be left out where it has its default.
        """
        frames = [span.first, span.end, span.context, span.cuts, [s.name for s in span.segments]]
        parts = [self.source_sha256, *frames, asdict(self.restore)]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def lay_out_spans(
    first: int, end: int, *, span_frames: int, segment_frames: int, cuts: Sequence[int] = (), context_frames: int = 0,
    latent_frames: int = 1,
) -> tuple[Span, ...]:  # fmt: skip
    """Cut [first, end) into spans of at most ``span_frames``, at cuts where that makes sense.

    A shot, the stretch between two cuts, is a span; but one shorter than ``segment_frames`` shares its span with those after
    it, because a span has a price of its own. A shot longer than a span is divided as evenly as possible, so that none is
    tiny; ``context_frames`` go before each part but the first. Both are whole latents of ``latent_frames``, counted from the
    shot's first frame: so latents on the two sides of such a border code the same frames, and have the same noise.
    """
    if not first < end or span_frames < 1 or segment_frames < 1:
        raise ValueError(f"no spans for frames [{first}, {end}), {span_frames} a span, {segment_frames} a segment")
    inside = sorted({c for c in cuts if first < c < end})
    # What shots share must never be divided: it holds whole latents only.
    span_frames = max(1, span_frames // latent_frames) * latent_frames
    pieces = []
    for start, stop in itertools.pairwise(_shared_borders([first, *inside, end], span_frames, segment_frames)):
        edges = _even_edges(start, stop, span_frames, latent_frames)
        pieces += [(a, b, min(context_frames, a - start)) for a, b in itertools.pairwise(edges)]
    return spans_of(pieces, segment_frames=segment_frames, cuts=inside)


def spans_of(pieces: Iterable[tuple[int, int, int]], *, segment_frames: int, cuts: Sequence[int]) -> tuple[Span, ...]:
    """Spans of (first, end, context) frames each; ``cuts`` that lie inside of one restore their shots apart."""
    return tuple(
        Span(
            index=index, first=first, end=end, context=context, segments=_segments(first, end, segment_frames),
            cuts=tuple(c for c in cuts if first < c < end),
        )
        for index, (first, end, context) in enumerate(pieces)
    )  # fmt: skip


def _shared_borders(borders: Sequence[int], span_frames: int, segment_frames: int) -> list[int]:
    """The borders of shots at which a span begins or ends."""
    kept = [borders[0]]
    for border, following in itertools.pairwise(borders[1:]):
        if border - kept[-1] >= segment_frames or following - kept[-1] > span_frames:
            kept.append(border)
    return [*kept, borders[-1]]


def _even_edges(start: int, stop: int, span_frames: int, latent_frames: int) -> list[int]:
    latents = -(-(stop - start) // latent_frames)
    count = -(-latents // (span_frames // latent_frames))
    return [*(start + latents * i // count * latent_frames for i in range(count)), stop]


def _segments(first: int, end: int, segment_frames: int) -> tuple[Segment, ...]:
    starts = range(first, end, segment_frames)
    return tuple(Segment(first=a, end=min(a + segment_frames, end)) for a in starts)


def plan_to_json(plan: Plan) -> bytes:
    """The stored form of a plan."""
    return json.dumps(asdict(plan), sort_keys=True).encode()


def plan_from_json(data: bytes) -> Plan:
    """Read :func:`plan_to_json` back.

    Raises:
        NewerRelease: a later release wrote it, and its frames would be other ones here.
        ValueError: not a plan.
    """
    record = record_fields(data, SCHEMA_VERSION, "a plan")
    segments = [segment for span in record["spans"] for segment in span["segments"]]
    for records, cls in (([record], Plan), ([record["restore"]], RestorePlan), (record["spans"], Span), (segments, Segment)):
        require_known(records, cls, "a plan")
    spans = tuple(_span(s) for s in record.pop("spans"))
    restore = record.pop("restore")
    options = tuple((name, value) for name, value in restore.pop("encoder_options"))
    return Plan(restore=RestorePlan(**restore, encoder_options=options), spans=spans, **record)


def _span(record: dict[str, Any]) -> Span:
    segments = tuple(Segment(**s) for s in record.pop("segments"))
    # Plans of earlier releases have no cuts.
    return Span(segments=segments, cuts=tuple(record.pop("cuts", ())), **record)
