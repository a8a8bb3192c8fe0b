from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from services.common.errors import InvalidOption, InvalidVideo, NotSupported
from services.common.plan import plan_from_json, plan_to_json
from services.gateway.job_request import JobRequest
from services.gateway.planning import expected_megapixels, frame_range, make_plan, output_size
from services.gateway.source import ARCHIVE
from tests.unit.gateway.examples import LIMITS, OFFER, index, info


def request(**changes: Any) -> JobRequest:
    return JobRequest(upload_id="u", **changes)


def plan_of(source_frames: int = 50, **changes: Any):
    return make_plan(request(**changes), info(), index(source_frames), "cd" * 32, OFFER, LIMITS)


@pytest.mark.parametrize(
    ("changes", "source", "size"),
    [
        ({}, {}, (640, 360)),
        ({"scale": 2.0}, {}, (1280, 720)),
        ({"scale": 1.51}, {}, (966, 544)),
        ({"short_side": 720}, {}, (1280, 720)),
        ({"short_side": 720}, {"width": 360, "height": 640}, (720, 1280)),
        ({"box": (1000, 1000)}, {}, (1000, 562)),
        ({"box": (1001, 333)}, {}, (592, 332)),
        ({}, {"sample_aspect_ratio": Fraction(4, 3)}, (854, 360)),
        ({"box": (400, 1000)}, {"rotation": 90}, (712, 400)),
        ({}, {"width": 641, "height": 361}, (640, 360)),
    ],
)
def test_the_output_size(changes: dict[str, Any], source: dict[str, Any], size: tuple[int, int]):
    assert output_size(request(**changes), info(**source), LIMITS) == size


@pytest.mark.parametrize("changes", [{"scale": 16.0}, {"box": (16, 16)}])
def test_an_output_that_is_too_large_or_too_small_is_refused(changes: dict[str, Any]):
    with pytest.raises(InvalidOption, match="The result would be") as error:
        output_size(request(**changes), info(), LIMITS)
    assert error.value.field == "request.target"


@pytest.mark.parametrize(
    ("changes", "frames"),
    [
        ({}, (0, 50)),
        ({"frames": (7, 19)}, (7, 19)),
        ({"frames": (7, 0)}, (7, 50)),
        ({"time_ns": (1_000_000_000, None)}, (25, 50)),
        ({"time_ns": (30_000_000, 100_000_000)}, (1, 3)),
    ],
)
def test_the_range_in_frames(changes: dict[str, Any], frames: tuple[int, int]):
    assert frame_range(request(**changes), info(), index(50)) == frames


@pytest.mark.parametrize("changes", [{"frames": (50, 0)}, {"frames": (0, 51)}, {"time_ns": (2_000_000_000, None)}])
def test_a_range_outside_of_the_video_names_what_there_is(changes: dict[str, Any]):
    with pytest.raises(InvalidOption, match=r"the video has frames \[0, 50\)"):
        frame_range(request(**changes), info(), index(50))


def test_a_plan_covers_the_range_with_spans_and_segments():
    plan, summary = plan_of(250, frames=(10, 240))
    assert (plan.first, plan.end, summary.frames, summary.first_frame) == (10, 240, 230, 10)
    assert plan.spans[0].first == 10
    assert plan.spans[-1].end == 240
    assert max(s.frames for s in plan.spans) <= 100
    assert (summary.spans, summary.segments) == (len(plan.spans), len(plan.segments))
    assert plan_from_json(plan_to_json(plan)) == plan


def test_a_job_is_as_large_before_it_is_planned_as_afterwards():
    asked = request(scale=2.0, frames=(10, 30))
    planned = plan_of(scale=2.0, frames=(10, 30))[1]
    expected = expected_megapixels(asked, info(), index(50), LIMITS)
    assert expected == planned.frames * planned.width * planned.height / 1e6 == 20 * 1280 * 720 / 1e6


def test_a_plan_takes_the_models_and_the_requests_word():
    plan, _ = plan_of(colour="none", seed=7, crf=20)
    assert (plan.restore.model, plan.restore.model_hash, plan.restore.fingerprint) == ("nano", "ab" * 32, "f1")
    assert (plan.restore.seed, plan.restore.colour, plan.restore.window_latents) == (7, "none", 7)
    assert plan.restore.encoder_options == (("crf", "20"), ("preset", "fast"))
    assert plan_of()[0].restore.seed == 666


def test_strength_is_part_of_the_plan():
    plan, _ = plan_of(input_noise=0.25, latent_noise=0.5)
    assert (plan.restore.input_noise, plan.restore.latent_noise, plan.restore.steps) == (0.25, 0.5, 1)


def test_a_model_that_can_take_more_steps_gets_them():
    able = replace(OFFER, model=replace(OFFER.model, max_steps=8))
    plan, _ = make_plan(request(steps=8), info(), index(), "cd" * 32, able, LIMITS)
    assert plan.restore.steps == 8


@pytest.mark.parametrize(("changes", "words"), [({"steps": 2}, "made for one step"), ({"cfg_scale": 1.5}, "without guidance")])
def test_a_distilled_model_says_what_it_cannot_take(changes: dict[str, Any], words: str):
    with pytest.raises(InvalidOption, match=words):
        plan_of(**changes)


def test_a_result_that_fits_no_worker_is_refused_before_it_is_planned():
    model = replace(OFFER.model, max_output_pixels=640 * 360, memory_base_bytes=1 << 30, memory_bytes_per_pixel=1000.0)
    offer = replace(OFFER, model=model, memory_bytes=2 << 30)
    _, summary = make_plan(request(), info(), index(50), "cd" * 32, offer, LIMITS)
    assert summary.predicted_memory_bytes == pytest.approx((1 << 30) + 1000 * 640 * 360, rel=0.05)
    with pytest.raises(InvalidOption, match=r"enough for frames of 0\.2 megapixels") as caught:
        make_plan(request(scale=2.0), info(), index(50), "cd" * 32, offer, LIMITS)
    assert caught.value.field == "request.target"


def test_slow_workers_get_shorter_spans():
    slow = replace(OFFER, megapixels_per_second=0.24)
    plan, summary = make_plan(request(), info(), index(250), "cd" * 32, slow, LIMITS)
    assert max(s.frames for s in plan.spans) <= 63
    assert summary.predicted_s == pytest.approx(250 * 640 * 360 / 1e6 / 0.48)


def test_frames_without_time_stamps_are_cut_at_keyframes():
    counted = index(250, by_order=True)
    plan, _ = make_plan(request(frames=(13, 240)), info(), counted, "cd" * 32, OFFER, LIMITS)
    assert plan.spans[0].context == 3
    assert all(s.first % 10 == 0 and s.context == 0 for s in plan.spans[1:])


def test_cuts_begin_spans_and_other_borders_get_context():
    offer = replace(OFFER, model=replace(OFFER.model, context_frames=8))
    cuts = (5, 13, 60, 63, 90, 241)
    plan, summary = make_plan(request(frames=(13, 240)), info(), index(250), "cd" * 32, offer, LIMITS, cuts)
    assert [(s.first, s.context, s.cuts) for s in plan.spans] == [
        (13, 0, ()), (60, 0, (63,)), (90, 0, ()), (166, 8, ())
    ]  # fmt: skip
    assert make_plan(request(frames=(13, 240)), info(), index(250), "cd" * 32, offer, LIMITS, cuts) == (plan, summary)
    fast = replace(offer, megapixels_per_second=100 * 640 * 360 / 1e6)
    predicted_s = make_plan(request(frames=(13, 240)), info(), index(250), "cd" * 32, fast, LIMITS, cuts)[1].predicted_s
    assert predicted_s == pytest.approx((227 + 8) / 100 / fast.workers)


def test_frames_without_time_stamps_are_cut_at_keyframes_that_are_cuts():
    counted = index(250, by_order=True)
    plan, _ = make_plan(request(frames=(13, 240)), info(), counted, "cd" * 32, OFFER, LIMITS, cuts=(20, 40, 45))
    assert [(s.first, s.context, s.cuts) for s in plan.spans] == [(13, 3, (20,)), (40, 0, (45,)), (140, 0, ())]


def test_a_picture_may_have_odd_sides():
    plan, summary = make_plan(
        request(scale=1.0), info(width=641, height=359, container=ARCHIVE), index(50), "cd" * 32, OFFER, LIMITS
    )
    assert (plan.restore.width, plan.restore.height, plan.container) == (641, 359, "zip")
    assert (plan.restore.encoder, plan.restore.output_pixel_format) == ("png", "rgb24")
    assert summary.container == "zip"


def test_deep_colour_stays_deep():
    plan, summary = make_plan(request(), info(bits=10), index(), "cd" * 32, OFFER, LIMITS)
    assert plan.restore.output_pixel_format == "yuv420p10le"
    assert "10 bits" in summary.warnings[0]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"colour": "adain", "frames": (0, 9)}, "request.colour"),
        ({"preview": True, "frames": (0, 60)}, "request.priority"),
        ({"frames": (0, 2600)}, "request.range"),
    ],
)
def test_an_option_that_does_not_fit_is_refused_by_its_field(changes: dict[str, Any], field: str):
    with pytest.raises(InvalidOption) as error:
        plan_of(2700, **changes)
    assert error.value.field == field


@pytest.mark.parametrize("size", [(8000, 8000), (8, 64)])
def test_frames_that_are_too_large_or_too_small_are_refused(size: tuple[int, int]):
    with pytest.raises(InvalidVideo, match=f"{size[0]}×{size[1]} pixels"):
        make_plan(request(), info(width=size[0], height=size[1]), index(), "cd" * 32, OFFER, LIMITS)


NVENC = replace(OFFER, encoders=("h264_nvenc", "hevc_nvenc"))


@pytest.mark.parametrize(("bits", "encoder", "form"), [(8, "h264_nvenc", "yuv420p"), (10, "hevc_nvenc", "p010le")])
def test_a_named_encoder_is_part_of_the_plan_and_of_its_keys(bits: int, encoder: str, form: str):
    plans = [
        make_plan(request(encoder=name), info(bits=bits), index(), "cd" * 32, NVENC, LIMITS)[0] for name in ("", "x264", "nvenc")
    ]
    assert plans[0] == plans[1]
    assert plans[0].restore.encoder == "libx264"
    assert (plans[2].restore.encoder, plans[2].restore.output_pixel_format) == (encoder, form)
    assert dict(plans[2].restore.encoder_options)["cq"] == "14"
    assert plans[2].span_key(plans[2].spans[0]) != plans[0].span_key(plans[0].spans[0])
    assert plan_from_json(plan_to_json(plans[2])) == plans[2]


def test_an_encoder_that_lacks_the_depth_is_refused():
    offer = replace(OFFER, encoders=("h264_nvenc",))
    make_plan(request(encoder="nvenc"), info(), index(), "cd" * 32, offer, LIMITS)
    with pytest.raises(NotSupported, match="hevc_nvenc") as error:
        make_plan(request(encoder="nvenc"), info(bits=10), index(), "cd" * 32, offer, LIMITS)
    assert error.value.field == "request.encoder"


@pytest.mark.parametrize("size", [(5000, 2000), (200, 100)])
def test_an_encoder_that_does_not_take_the_size_is_refused(size: tuple[int, int]):
    wide = info(width=size[0], height=size[1])
    limits = replace(LIMITS, max_source_pixels=10**8, max_output_pixels=10**8)
    make_plan(request(), wide, index(), "cd" * 32, NVENC, limits)
    with pytest.raises(InvalidOption, match="160 to 4096 pixels") as error:
        make_plan(request(encoder="nvenc"), wide, index(), "cd" * 32, NVENC, limits)
    assert error.value.field == "request.encoder"
