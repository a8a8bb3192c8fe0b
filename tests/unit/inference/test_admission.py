from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from services.common.errors import FingerprintChanged, InvalidOption
from services.common.fleet import WorkerModel
from services.common.media import CodecParameters, SpanTask
from services.common.plan import NOISE, RestorePlan, Segment
from services.inference.admission import check_task

MODEL = WorkerModel(
    name="nano", title="", hash="hash", dtype="float32", weight_format="float32", size_multiple=8, temporal_factor=1,
    window_latents=16, overlap_latents=0, parameters=1, colours=("wavelet", "none"),
)  # fmt: skip
PLAN = RestorePlan(
    model="nano", model_hash="hash", fingerprint="print", dtype="float32", weight_format="float32", width=64, height=48, seed=1,
    noise=NOISE, window_latents=16, encoder_options=(("crf", "14"),),
)  # fmt: skip
TASK = SpanTask(
    job_id="", span=0, request_id="", time_base=Fraction(1, 25), first_index=4, frame_pts=(4, 5, 6, 8, 9), last_duration=1,
    codec=CodecParameters(codec="h264", extradata=b"", width=64, height=48, pixel_format="yuv420p"), by_order=False,
    context_frames=1, segments=(Segment(first=5, end=8), Segment(first=8, end=9)), stored=frozenset(), plan=PLAN,
)  # fmt: skip


def test_a_task_that_fits_is_taken():
    check_task(TASK, MODEL, "print")
    check_task(replace(TASK, cuts=(5, 8), plan=replace(PLAN, overlap_latents=8)), MODEL, "print")
    nvenc = replace(PLAN, encoder="hevc_nvenc", output_pixel_format="p010le", encoder_options=(("cq", "14"),))
    check_task(replace(TASK, plan=nvenc), MODEL, "print", ("hevc_nvenc",))
    check_task(replace(TASK, plan=replace(PLAN, window_latents=0, output_pixel_format="yuv420p10le")), MODEL, "print")


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("plan.model", {"model": "seedvr2-3b"}),
        ("plan.colour", {"colour": "lab"}),
        ("plan.steps", {"steps": 2}),
        ("plan.output_pixel_format", {"output_pixel_format": "rgba"}),
        ("plan.input_noise", {"input_noise": -0.5}),
        ("plan.latent_noise", {"latent_noise": float("nan")}),
        ("plan.dtype", {"dtype": "bfloat16"}),
        ("plan.noise", {"noise": "another"}),
        ("plan.tile_size", {"tile_size": 512}),
        ("plan.overlap_latents", {"window_latents": 8, "overlap_latents": 5}),
        ("plan.overlap_latents", {"overlap_latents": -1}),
        ("plan.window_latents", {"window_latents": 17}),
        ("plan.window_latents", {"window_latents": -1}),
        ("plan.width", {"width": 63}),
        ("plan.width", {"width": 0}),
        ("plan.height", {"height": 16386}),
        ("plan.output_pixel_format", {"output_pixel_format": "rgb24"}),
        ("plan.encoder", {"encoder": "libx265"}),
        ("plan.output_pixel_format", {"encoder": "hevc_nvenc", "encoder_options": ()}),
        ("plan.encoder_options", {"encoder": "h264_nvenc"}),
        ("plan.encoder_options", {"encoder_options": (("stats", "/etc/passwd"),)}),
    ],
)
def test_a_plan_that_nobody_here_can_follow_is_refused(field: str, changes: dict[str, Any]):
    with pytest.raises(InvalidOption) as caught:
        check_task(replace(TASK, plan=replace(PLAN, **changes)), MODEL, "print")
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("field", "changes"),
    [
        ("time_base", {"time_base": Fraction(0)}),
        ("time_base", {"last_duration": -1}),
        ("time_base", {"codec": replace(TASK.codec, frame_rate=Fraction(0))}),
        ("codec.width", {"codec": replace(TASK.codec, width=0)}),
        ("codec.width", {"codec": replace(TASK.codec, height=30000)}),
        ("frame_pts", {"frame_pts": ()}),
        ("frame_pts", {"frame_pts": (1, 2, 2, 3, 4)}),
        ("frame_pts", {"frame_pts": (1, 2, 3, 4, 1 << 62)}),
        ("context_frames", {"context_frames": 5}),
        ("context_frames", {"context_frames": -1}),
        ("context_frames", {"first_index": -1}),
        ("cuts", {"cuts": (4,)}),
        ("cuts", {"cuts": (9,)}),
        ("cuts", {"cuts": (6, 6)}),
        ("segments", {"segments": ()}),
        ("segments", {"segments": (Segment(first=5, end=8),)}),
        ("segments", {"segments": (Segment(first=5, end=7), Segment(first=8, end=9))}),
        ("segments", {"segments": (Segment(first=5, end=9), Segment(first=9, end=9))}),
        ("stall_timeout", {"stall_timeout_s": 0.0}),
    ],
)
def test_a_task_that_contradicts_itself_is_refused(field: str, changes: dict[str, Any]):
    with pytest.raises(InvalidOption) as caught:
        check_task(replace(TASK, **changes), MODEL, "print")
    assert caught.value.field == field


@pytest.mark.parametrize("changes", [{"model_hash": "other"}, {"fingerprint": "other"}])
def test_what_was_planned_for_other_workers_is_refused(changes: dict[str, str]):
    with pytest.raises(FingerprintChanged, match=r"plan the job again\.|The plan was made for workers"):
        check_task(replace(TASK, plan=replace(PLAN, **changes)), MODEL, "print")


def test_a_plan_with_an_encoder_that_does_not_open_here_belongs_elsewhere():
    task = replace(TASK, plan=replace(PLAN, encoder="h264_nvenc", encoder_options=(("cq", "14"),)))
    check_task(task, MODEL, "print", ("h264_nvenc",))
    with pytest.raises(FingerprintChanged, match=r"NVENC \(h264_nvenc\), and it doesn't open"):
        check_task(task, MODEL, "print", ("hevc_nvenc",))
