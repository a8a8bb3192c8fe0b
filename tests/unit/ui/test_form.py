from typing import Any

import pytest

from services.common import colours
from services.common.errors import InvalidOption
from services.common.formats import FORMATS
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.ui.form import COLOURS, CONTAINERS, Choices, is_preview, job_request, preview_request, whole_request


def choices(**changed: Any) -> Choices:
    return Choices(**{"upload_id": "clip", "model": "nano", "size": "same", **changed})


def test_the_choices_become_a_request() -> None:
    request = job_request(choices(size="scale", scale=2.0, seed=7, colour=pb.COLOUR_MODE_LAB, crf=18))
    assert request.source.upload_id == "clip"
    assert request.model == "nano"
    assert request.target.scale == 2.0
    assert (request.seed, request.crf, request.colour) == (7, 18, pb.COLOUR_MODE_LAB)


def test_every_form_of_a_result_can_be_asked_for() -> None:
    assert set(CONTAINERS.values()) == {"", *FORMATS}
    assert job_request(choices(container="zip")).container == "zip"


def test_noise_and_freedom_are_asked_for() -> None:
    request = job_request(choices(input_noise=0.25, latent_noise=0.5))
    assert (request.input_noise, request.latent_noise) == (0.25, 0.5)


def test_every_colour_mode_has_words_the_default_first() -> None:
    assert set(COLOURS) == set(pb.ColourMode.values()) - {pb.COLOUR_MODE_UNSPECIFIED}
    assert next(iter(COLOURS)) == pb.ColourMode.Value(f"COLOUR_MODE_{colours.COLOURS[0].upper()}")


def test_what_was_not_chosen_is_left_to_the_gateway() -> None:
    request = job_request(choices(model=None))
    assert request.model == ""
    assert not request.HasField("target")
    assert not request.HasField("seed")
    assert not request.HasField("crf")


def test_a_size_can_be_a_shorter_side_or_a_box() -> None:
    assert job_request(choices(size="short_side", short_side=1080)).target.short_side == 1080
    box = job_request(choices(size="box", width=1920, height=1080)).target.box
    assert (box.width, box.height) == (1920, 1080)


@pytest.mark.parametrize(
    ("changed", "field"),
    [
        ({"upload_id": ""}, "request.source.upload_id"),
        ({"size": "scale", "scale": 0}, "request.target.scale"),
        ({"input_noise": 2.0}, "request.input_noise"),
        ({"latent_noise": float("nan")}, "request.latent_noise"),
        ({"size": "scale", "scale": None}, "request.target.scale"),
        ({"size": "short_side", "short_side": None}, "request.target.short_side"),
        ({"size": "box", "width": 1920.5, "height": 1080}, "request.target.box.width"),
        ({"size": "box", "width": 1920, "height": 8}, "request.target.box.height"),
        ({"seed": -1}, "request.seed"),
        ({"seed": float("nan")}, "request.seed"),
        ({"seed": 2.0**53}, "request.seed"),
        ({"crf": 52}, "request.crf"),
    ],
)
def test_a_wrong_choice_is_named(changed: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidOption) as caught:
        job_request(choices(**changed))
    assert caught.value.field == field


def test_a_preview_is_two_seconds_ahead_of_other_work() -> None:
    preview = preview_request(job_request(choices()), 1.5)
    assert preview.range.time.start.ToMilliseconds() == 1500
    assert preview.range.time.end.ToMilliseconds() == 3500
    assert preview.priority == pb.PRIORITY_PREVIEW
    assert is_preview(preview)


@pytest.mark.parametrize("start_s", [-0.1, float("inf"), float("nan")])
def test_a_preview_begins_inside_time(start_s: float) -> None:
    with pytest.raises(InvalidOption, match="preview"):
        preview_request(job_request(choices()), start_s)


def test_the_whole_of_a_preview_is_what_was_chosen() -> None:
    whole = job_request(choices(seed=3))
    assert whole_request(preview_request(whole, None)) == whole
