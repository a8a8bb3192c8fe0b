from typing import Any

import pytest

from services.common.errors import InvalidOption, NotSupported
from services.gateway.job_request import JobRequest
from services.gateway.options import check_id, check_request


@pytest.mark.parametrize("text", ["a", "0-a", "a" * 63])
def test_good_ids_pass(text: str):
    check_id(text, "job_id")


@pytest.mark.parametrize("text", ["", "A", "-a", "a" * 64, "a/b", "a.b", "ä", "a\n"])
def test_bad_ids_name_their_field(text: str):
    with pytest.raises(InvalidOption) as error:
        check_id(text, "job_id")
    assert error.value.field == "job_id"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"upload_id": ""}, "request.source"),
        ({"upload_id": "../x"}, "request.source.upload_id"),
        ({"scale": 0.0}, "request.target.scale"),
        ({"scale": float("nan")}, "request.target.scale"),
        ({"scale": 17.0}, "request.target.scale"),
        ({"short_side": 8}, "request.target.short_side"),
        ({"box": (1920, 0)}, "request.target.box"),
        ({"frames": (5, 5)}, "request.range.frames"),
        ({"frames": (-1, 5)}, "request.range.frames"),
        ({"time_ns": (5, 5)}, "request.range.time"),
        ({"container": "avi"}, "request.container"),
        ({"crf": 52}, "request.crf"),
        ({"encoder": "h264_nvenc"}, "request.encoder"),
        ({"labels": tuple((str(i), "") for i in range(17))}, "request.labels"),
        ({"labels": (("a", "b" * 257),)}, "request.labels"),
        ({"input_noise": 1.1}, "request.input_noise"),
        ({"latent_noise": float("nan")}, "request.latent_noise"),
        ({"steps": 0}, "request.steps"),
        ({"cfg_scale": float("inf")}, "request.cfg_scale"),
    ],
)
def test_a_wrong_option_is_refused_by_its_field(changes: dict[str, Any], field: str):
    with pytest.raises(InvalidOption) as error:
        check_request(JobRequest(**{"upload_id": "u", **changes}))
    assert error.value.field == field


@pytest.mark.parametrize(
    ("name", "field"),
    [
        ("object_uri", "request.source.object_uri"),
        ("https_url", "request.source.https_url"),
        ("result_uri", "request.result_uri"),
        ("webhook_url", "request.webhook_url"),
    ],
)
def test_what_is_not_offered_here_is_said_so(name: str, field: str):
    with pytest.raises(NotSupported) as error:
        check_request(JobRequest(**{"upload_id": "u", name: "x"}))
    assert error.value.field == field


@pytest.mark.parametrize("name", ["object_uri", "https_url"])
def test_a_source_that_is_fetched_needs_no_upload_where_it_is_offered(name: str):
    check_request(JobRequest(**{name: "x"}), {name})
    with pytest.raises(InvalidOption, match="names no source"):
        check_request(JobRequest(webhook_url="x"), {"webhook_url"})


def test_a_plain_request_passes():
    check_request(JobRequest(upload_id="u", scale=2.0, frames=(0, 0), container="mkv", crf=51))
