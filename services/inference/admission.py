"""Whether a span can be restored here. Pure: what is wrong with a task is said before anything is started for it."""

import itertools
from collections.abc import Collection

from services.common.encoders import HARDWARE_ENCODERS, title_of
from services.common.errors import FingerprintChanged, InvalidOption
from services.common.fleet import WorkerModel
from services.common.media import SpanTask
from services.common.pixels import PICTURE_ENCODER, PIXEL_FORMATS, VIDEO_ENCODER
from services.common.plan import NOISE, RestorePlan

ENCODER_OPTIONS = {
    VIDEO_ENCODER: frozenset({"crf", "preset", "tune"}),
    PICTURE_ENCODER: frozenset({"compression_level", "pred"}),
    **dict.fromkeys(HARDWARE_ENCODERS, frozenset({"bf", "cq", "g", "preset", "profile", "rc", "tune"})),
}
"""Encoders, with the options that a plan may set."""

_MAX_SIDE = 16384
_MAX_STAMP = 1 << 62


def check_task(task: SpanTask, model: WorkerModel, fingerprint: str, encoders: Collection[str] = ()) -> None:
    """Accept a task or say why not; ``encoders`` open here beside those that every worker has.

    Raises:
        InvalidOption: it contradicts itself, or asks for what nobody here can do.
        FingerprintChanged: it was planned for another model, or for workers with other rounding or another encoder.
    """
    _check_plan(task.plan, model)
    _check_frames(task)
    _check_segments(task)
    if task.plan.model_hash != model.hash:
        raise FingerprintChanged(f"The plan names other weights of {model.name} than this worker has loaded; plan the job again.")
    if task.plan.fingerprint != fingerprint:
        raise FingerprintChanged("The plan was made for workers that compute differently from this one; plan the job again.")
    if task.plan.encoder in HARDWARE_ENCODERS and task.plan.encoder not in encoders:
        raise FingerprintChanged(
            f"The plan was made for workers with {title_of(task.plan.encoder)} ({task.plan.encoder}), and it doesn't open on "
            "this one; plan the job again."
        )


def _check_plan(plan: RestorePlan, model: WorkerModel) -> None:
    if plan.model != model.name:
        raise InvalidOption(f"This worker has loaded {model.name}, not {plan.model!r}.", field="plan.model")
    if plan.colour not in model.colours:
        raise InvalidOption(f"{plan.colour!r} is no colour mode of {model.name}.", field="plan.colour")
    if plan.dtype != model.dtype:
        raise InvalidOption(f"This worker computes in {model.dtype}, not in {plan.dtype!r}.", field="plan.dtype")
    if not 1 <= plan.steps <= model.max_steps:
        raise InvalidOption(f"{model.name} takes 1 to {model.max_steps} steps, not {plan.steps}.", field="plan.steps")
    for name in ("input_noise", "latent_noise"):
        if not 0 <= getattr(plan, name) <= 1:
            raise InvalidOption(f"{name} must lie between 0 and 1, not {getattr(plan, name)}.", field=f"plan.{name}")
    if plan.noise != NOISE:
        raise InvalidOption(f"{plan.noise!r} is no known way to draw noise.", field="plan.noise")
    if plan.tile_size or plan.tile_overlap:
        raise InvalidOption("This worker doesn't tile frames.", field="plan.tile_size")
    if not 0 <= plan.window_latents <= model.window_latents:
        raise InvalidOption(f"At most {model.window_latents} latents are taken at a time.", field="plan.window_latents")
    if not 0 <= 2 * plan.overlap_latents <= plan.window_latents:
        raise InvalidOption("Windows can share at most half of their latents.", field="plan.overlap_latents")
    _check_output(plan)


def _check_output(plan: RestorePlan) -> None:
    for name in ("width", "height"):
        side = getattr(plan, name)
        if (side % 2 and plan.encoder != PICTURE_ENCODER) or not 2 <= side <= _MAX_SIDE:
            raise InvalidOption(
                f"A result's {name} must be from 2 to {_MAX_SIDE}, of a video even, not {side}.", field=f"plan.{name}"
            )
    if plan.output_pixel_format not in PIXEL_FORMATS:
        raise InvalidOption(f"{plan.output_pixel_format!r} can't be encoded here.", field="plan.output_pixel_format")
    if plan.encoder not in ENCODER_OPTIONS:
        raise InvalidOption(f"{plan.encoder!r} is no encoder of this worker.", field="plan.encoder")
    if plan.encoder not in PIXEL_FORMATS[plan.output_pixel_format].encoders:
        raise InvalidOption(f"{plan.encoder} doesn't encode {plan.output_pixel_format}.", field="plan.output_pixel_format")
    unknown = sorted({name for name, _ in plan.encoder_options} - ENCODER_OPTIONS[plan.encoder])
    if unknown:
        raise InvalidOption(f"{unknown[0]!r} is no option of the encoder that may be set.", field="plan.encoder_options")


def _check_frames(task: SpanTask) -> None:
    codec = task.codec
    if task.time_base <= 0 or codec.frame_rate <= 0 or task.last_duration < 0:
        raise InvalidOption("Time base and frame rate must be above 0 and durations not below.", field="time_base")
    if not (0 < codec.width <= _MAX_SIDE and 0 < codec.height <= _MAX_SIDE):
        raise InvalidOption(f"Frames of {codec.width}×{codec.height} pixels can't be decoded here.", field="codec.width")
    stamps = task.frame_pts
    if not stamps or any(a >= b for a, b in itertools.pairwise(stamps)) or not -_MAX_STAMP < stamps[0] <= stamps[-1] < _MAX_STAMP:
        raise InvalidOption("The frames' time stamps must ascend.", field="frame_pts")
    if not 0 <= task.context_frames < len(stamps) or task.first_index < 0:
        raise InvalidOption("A span needs a frame beside its context.", field="context_frames")
    borders = [task.first_index, *task.cuts, task.first_index + len(stamps)]
    if any(a >= b for a, b in itertools.pairwise(borders)):
        raise InvalidOption("Cuts must ascend inside the span.", field="cuts")


def _check_segments(task: SpanTask) -> None:
    first, end = task.first_index + task.context_frames, task.first_index + len(task.frame_pts)
    borders = [first, *(s.end for s in task.segments)]
    whole = all((s.first == before and s.end > before) for s, before in zip(task.segments, borders, strict=False))
    if not whole or borders[-1] != end:
        raise InvalidOption(f"The segments don't cover the frames [{first}, {end}) without gaps.", field="segments")
    if not task.stall_timeout_s > 0:
        raise InvalidOption("The stall timeout must be above 0.", field="stall_timeout")
