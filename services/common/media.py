"""What gateway and inference say about a video: its codec, its packets, the work on one span. Plain data."""

from dataclasses import dataclass, field
from fractions import Fraction

from services.common.plan import RestorePlan, Segment


@dataclass(frozen=True, slots=True, kw_only=True)
class CodecParameters:
    """What a decoder must know before the first packet."""

    codec: str
    """FFmpeg's decoder name."""

    extradata: bytes
    """As the container stores it; may be empty."""

    width: int
    """Coded picture, pixels."""

    height: int
    """Coded picture, pixels."""

    pixel_format: str
    """FFmpeg's name."""

    sample_aspect_ratio: Fraction = Fraction(1)
    """Width of a pixel by its height."""

    colour_primaries: int = 2
    """ITU-T H.273; 2: unspecified."""

    colour_transfer: int = 2
    """ITU-T H.273."""

    colour_matrix: int = 2
    """ITU-T H.273."""

    colour_range: int = 0
    """0: unspecified, 1: limited, 2: full."""

    frame_rate: Fraction = Fraction(25)
    """Average; for the encoder's rate control only."""

    rotation: int = 0
    """Degrees counter-clockwise that a player turns the picture: 0, 90, 180, 270."""

    side_data: dict[str, bytes] = field(default_factory=dict)
    """Of the stream, by FFmpeg's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Packet:
    """One encoded packet of the video stream."""

    pts: int | None
    """Presentation time in the stream's time base."""

    dts: int | None
    """Decoding time."""

    duration: int
    """In the time base; 0: unknown."""

    keyframe: bool
    """Decoding can start here."""

    data: bytes
    """Its bytes."""

    side_data: dict[str, bytes] = field(default_factory=dict)
    """By FFmpeg's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanTask:
    """Everything a worker needs for a span besides its packets."""

    job_id: str
    """For logs."""

    span: int
    """Index in the plan, for logs."""

    request_id: str
    """Of this attempt, for logs."""

    codec: CodecParameters
    """Of the source stream."""

    time_base: Fraction
    """Seconds a tick."""

    first_index: int
    """Source index of the first frame in ``frame_pts`` (context included)."""

    frame_pts: tuple[int, ...]
    """Time stamp of each frame of [start − context, end), strictly ascending."""

    last_duration: int
    """Ticks that the last frame is shown."""

    by_order: bool
    """Packets carry no presentation times; frames take ``frame_pts`` in the order in which they are decoded."""

    context_frames: int
    """How many of the first frames only warm the state up."""

    segments: tuple[Segment, ...]
    """Of this span, in order."""

    stored: frozenset[int]
    """``first`` of the segments that the store has already: restored for the state's sake, not encoded, not sent."""

    plan: RestorePlan
    """What decides the pixels."""

    stall_timeout_s: float = 300.0
    """The worker gives up after this much time without progress."""

    preview: bool = False
    """Goes before batch work."""

    cuts: tuple[int, ...] = ()
    """Source indices, ascending, of frames that begin a shot inside the span."""
