"""From a request and a source to a plan: which frames, which size, which spans, which container. Pure."""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

from services.common.colours import COLOURS
from services.common.encoders import SIDES, title_of
from services.common.errors import InvalidOption, InvalidVideo, NotSupported
from services.common.fleet import WorkerModel, has_encoder
from services.common.plan import Plan, RestorePlan, Span, lay_out_spans, spans_of
from services.gateway.encoding import encoder_options
from services.gateway.job_request import JobRequest
from services.gateway.jobs import PlanSummary
from services.gateway.outputs import Output, choose_output
from services.gateway.room import check_room, predicted_memory_bytes
from services.gateway.source import SourceIndex, SourceInfo

DEFAULT_SEED = 666
DEFAULT_CRF = 14
_SMALLEST_SIDE = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanLimits:
    """What this installation allows, and how it cuts."""

    max_source_pixels: int
    """Of a frame."""

    max_output_pixels: int
    """Of a frame."""

    max_duration_s: float
    """Of the frames to restore."""

    preview_max_s: float
    """The same for previews."""

    span_s: float
    """Longest span in source time."""

    span_work_s: float
    """Longest span in work, where the workers' speed is known; 0: no limit."""

    segment_frames: int
    """Frames of a segment."""

    encoder_preset: str
    """Of the encoder, by x264's name."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Offer:
    """Workers that could restore a job."""

    model: WorkerModel
    """What they have loaded."""

    pool: str
    """The pool that was asked for; empty: any."""

    fingerprint: str
    """Theirs."""

    workers: int
    """How many they are."""

    megapixels_per_second: float
    """Speed of one of them; 0: not measured."""

    memory_bytes: int = 0
    """Of the largest device among them; 0: not known."""

    encoders: tuple[str, ...] = ()
    """That some of them have beside those that every worker has, by FFmpeg's names."""


def make_plan(
    request: JobRequest, info: SourceInfo, index: SourceIndex, sha256: str, offer: Offer, limits: PlanLimits,
    cuts: Sequence[int] = (),
) -> tuple[Plan, PlanSummary]:  # fmt: skip
    """Everything that decides a job's pixels; ``cuts`` are source indices of frames that begin a shot, ascending.

    Raises:
        InvalidOption: an option doesn't fit this source, this model or this installation.
        NotSupported: no worker has the encoder.
        InvalidVideo: the source is larger than allowed.
    """
    check_source(info, limits)
    first, end = frame_range(request, info, index)
    duration_s = float((index.end_of(end - 1) - index.pts[first]) * info.time_base)
    _check_duration(request, duration_s, limits)
    output = choose_output(request.container, info, end - first, request.encoder)
    width, height = output_size(request, info, limits, output.size_step)
    check_encoder(output, offer, width, height)
    check_room(offer.model, width, height, offer.memory_bytes)
    restore = _restore_plan(request, output, offer, limits, width, height)
    limits = replace(limits, segment_frames=output.segment_frames(width, height, limits.segment_frames))
    span_frames = _span_frames(duration_s / (end - first), width * height, offer, limits)
    spans = _spans(first, end, index, cuts, span_frames, offer.model, limits)
    plan = Plan(
        source_sha256=sha256, source_width=info.codec.width, source_height=info.codec.height, first=first, end=end,
        restore=restore, spans=spans, container=output.container, pool=request.pool,
    )  # fmt: skip
    return plan, summarise(plan, duration_s, offer, (*index.warnings, *output.warnings))


def summarise(plan: Plan, duration_s: float, offer: Offer, warnings: Sequence[str]) -> PlanSummary:
    """What people want to know of a plan."""
    work_frames = plan.frames + sum(span.context for span in plan.spans)
    megapixels = work_frames * plan.restore.width * plan.restore.height / 1e6
    speed = offer.megapixels_per_second * min(offer.workers, len(plan.spans))
    return PlanSummary(
        model=plan.restore.model, pool=plan.pool, fingerprint=plan.restore.fingerprint,
        source_width=plan.source_width, source_height=plan.source_height, width=plan.restore.width, height=plan.restore.height,
        frames=plan.frames, first_frame=plan.first, spans=len(plan.spans), segments=len(plan.segments), duration_s=duration_s,
        predicted_s=megapixels / speed if speed > 0 else None, container=plan.container, warnings=tuple(warnings),
        predicted_memory_bytes=predicted_memory_bytes(offer.model, plan.restore.width, plan.restore.height, offer.memory_bytes),
    )  # fmt: skip


def expected_megapixels(request: JobRequest, info: SourceInfo, index: SourceIndex, limits: PlanLimits) -> float:
    """Output of a job before it is planned, in megapixels, without frames that only warm workers up.

    Raises:
        InvalidOption: an option doesn't fit this source, or this installation.
    """
    first, end = frame_range(request, info, index)
    output = choose_output(request.container, info, end - first, request.encoder)
    width, height = output_size(request, info, limits, output.size_step)
    return (end - first) * width * height / 1e6


def check_source(info: SourceInfo, limits: PlanLimits) -> None:
    """Raises InvalidVideo where the source's frames are larger, or smaller, than can be restored."""
    width, height = info.codec.width, info.codec.height
    if width * height > limits.max_source_pixels:
        most = limits.max_source_pixels / 1e6
        raise InvalidVideo(f"The video is {width}×{height} pixels; at most {most:g} megapixels are taken here. Make it smaller.")
    if min(width, height) < _SMALLEST_SIDE:
        raise InvalidVideo(f"The video is {width}×{height} pixels; each side must have at least {_SMALLEST_SIDE}.")


def frame_range(request: JobRequest, info: SourceInfo, index: SourceIndex) -> tuple[int, int]:
    """The source frames [first, end) that a request asks for.

    Raises:
        InvalidOption: the source has none of them, or not all.
    """
    if request.frames is not None:
        return _checked(request.frames[0], request.frames[1] or index.frames, index, "request.range.frames")
    if request.time_ns is not None:
        start, stop = request.time_ns
        first = _frame_at(start, info, index)
        end = index.frames if stop is None else _frame_at(stop, info, index)
        return _checked(first, end, index, "request.range.time")
    return 0, index.frames


def _frame_at(time_ns: int, info: SourceInfo, index: SourceIndex) -> int:
    tick = index.pts[0] + Fraction(time_ns, 10**9) / info.time_base
    return bisect.bisect_left(index.pts, tick)


def _checked(first: int, end: int, index: SourceIndex, field: str) -> tuple[int, int]:
    if not first < end <= index.frames:
        raise InvalidOption(
            f"The range is frames [{first}, {end}); the video has frames [0, {index.frames}), choose some of these.", field=field
        )
    return first, end


def _check_duration(request: JobRequest, duration_s: float, limits: PlanLimits) -> None:
    if duration_s > limits.max_duration_s:
        raise InvalidOption(
            f"{duration_s:.0f} s are to be restored; at most {limits.max_duration_s:.0f} s a job here. Choose a range.",
            field="request.range",
        )
    if request.preview and duration_s > limits.preview_max_s:
        raise InvalidOption(
            f"A preview of {duration_s:.0f} s is too long; choose a range of at most {limits.preview_max_s:.0f} s, "
            "or priority batch.",
            field="request.priority",
        )


def output_size(request: JobRequest, info: SourceInfo, limits: PlanLimits, step: int = 2) -> tuple[int, int]:
    """Width and height of the result as stored, in square pixels, multiples of ``step``.

    Raises:
        InvalidOption: it would be too small or too large.
    """
    width, height = info.codec.width * info.codec.sample_aspect_ratio, Fraction(info.codec.height)
    found = _rounded(width, height, _factor(request, width, height, info.codec.rotation), step)
    if request.box is not None:
        box = request.box[::-1] if info.codec.rotation in (90, 270) else request.box
        found = min(found[0], box[0] // step * step), min(found[1], box[1] // step * step)
    return _checked_size(found, limits)


def _factor(request: JobRequest, width: Fraction, height: Fraction, rotation: int) -> Fraction:
    if request.scale is not None:
        return Fraction(request.scale)
    if request.short_side is not None:
        return request.short_side / min(width, height)
    if request.box is not None:
        # The box is what a player shows, and that may be turned.
        across, down = request.box[::-1] if rotation in (90, 270) else request.box
        return min(across / width, down / height)
    return Fraction(1)


def _rounded(width: Fraction, height: Fraction, factor: Fraction, step: int) -> tuple[int, int]:
    return step * round(width * factor / step), step * round(height * factor / step)


def _checked_size(size: tuple[int, int], limits: PlanLimits) -> tuple[int, int]:
    width, height = size
    if min(size) < _SMALLEST_SIDE:
        raise InvalidOption(
            f"The result would be {width}×{height} pixels; choose a larger target, at least {_SMALLEST_SIDE} a side.",
            field="request.target",
        )
    if width * height > limits.max_output_pixels:
        raise InvalidOption(
            f"The result would be {width}×{height} pixels; at most {limits.max_output_pixels / 1e6:g} megapixels are made here. "
            "Choose a smaller target.",
            field="request.target",
        )
    return size


def _restore_plan(request: JobRequest, output: Output, offer: Offer, limits: PlanLimits, width: int, height: int) -> RestorePlan:
    model = offer.model
    _check_steps(request, model)
    crf = DEFAULT_CRF if request.crf is None else request.crf
    return RestorePlan(
        model=model.name, model_hash=model.hash, fingerprint=offer.fingerprint, dtype=model.dtype,
        weight_format=model.weight_format, width=width, height=height,
        seed=DEFAULT_SEED if request.seed is None else request.seed, colour=_colour(request, model),
        input_noise=request.input_noise, latent_noise=request.latent_noise, steps=request.steps,
        window_latents=model.window_latents, overlap_latents=model.overlap_latents,
        encoder=output.encoder, encoder_options=encoder_options(output.encoder, crf, limits.encoder_preset),
        output_pixel_format=output.pixel_format,
    )  # fmt: skip


def check_encoder(output: Output, offer: Offer, width: int, height: int) -> None:
    """Whether the workers can encode the result.

    Raises:
        NotSupported: none has the encoder. InvalidOption: it doesn't take frames of this size.
    """
    title = title_of(output.encoder)
    if not has_encoder(offer.encoders, (output.encoder,)):
        raise NotSupported(
            f"{title} doesn't open on the workers for frames of this depth ({output.encoder}): their cards or drivers don't "
            "encode it; leave the encoder out for x264.",
            field="request.encoder",
        )
    least, most = SIDES.get(output.encoder, (0, max(width, height)))
    if not (least <= min(width, height) and max(width, height) <= most):
        raise InvalidOption(
            f"{title} takes frames with sides of {least} to {most} pixels here, and the result would be {width}×{height}; "
            "choose another target, or leave the encoder out for x264.",
            field="request.encoder",
        )


def _check_steps(request: JobRequest, model: WorkerModel) -> None:
    if request.steps > model.max_steps:
        most = "one step" if model.max_steps == 1 else f"at most {model.max_steps} steps"
        raise InvalidOption(
            f"The model {model.name} is made for {most}, more would make its results worse; leave steps out.",
            field="request.steps",
        )
    if request.cfg_scale != 1:
        raise InvalidOption(
            f"The model {model.name} is made to work without guidance, and has no negative text; leave cfg_scale out, or give 1.",
            field="request.cfg_scale",
        )


def _colour(request: JobRequest, model: WorkerModel) -> str:
    offered = model.colours or COLOURS[:1]
    if request.colour and request.colour not in offered:
        raise InvalidOption(
            f"The model {model.name} doesn't offer the colour mode {request.colour}; choose {' or '.join(offered)}.",
            field="request.colour",
        )
    return request.colour or offered[0]


def _span_frames(frame_s: float, pixels: int, offer: Offer, limits: PlanLimits) -> int:
    frames = limits.span_s / frame_s if frame_s > 0 else 1
    if offer.megapixels_per_second > 0 and limits.span_work_s > 0:
        frames = min(frames, limits.span_work_s * offer.megapixels_per_second * 1e6 / pixels)
    # Shorter than a segment would only add seams.
    return max(round(frames), limits.segment_frames)


def _spans(
    first: int, end: int, index: SourceIndex, cuts: Sequence[int], span_frames: int, model: WorkerModel, limits: PlanLimits
) -> tuple[Span, ...]:
    if index.by_order:
        return _counted_spans(first, end, index, cuts, span_frames, limits)
    return lay_out_spans(
        first, end, span_frames=span_frames, segment_frames=limits.segment_frames, cuts=cuts,
        context_frames=model.context_frames, latent_frames=max(1, model.temporal_factor),
    )  # fmt: skip


def _counted_spans(
    first: int, end: int, index: SourceIndex, cuts: Sequence[int], span_frames: int, limits: PlanLimits
) -> tuple[Span, ...]:
    # Frames are told apart by counting from a keyframe, so spans begin at one; the first brings the frames before it along.
    borders = [first]
    for keyframe in (k.frame for k in index.keyframes if first < k.frame < end):
        length = keyframe - borders[-1]
        if length >= span_frames or (length >= limits.segment_frames and keyframe in cuts):
            borders.append(keyframe)
    contexts = [first - index.keyframe_before(first).frame, *[0] * (len(borders) - 1)]
    return spans_of(zip(borders, [*borders[1:], end], contexts, strict=True), segment_frames=limits.segment_frames, cuts=cuts)
