from dataclasses import replace

import pytest

from services.common.errors import WrongState
from services.gateway import jobs
from services.gateway.job_json import job_from_json, request_to_json, state_to_json
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Job, PlanSummary
from services.gateway.keys import Ref

JOB = Job(
    owner="me", job_id="film", request=JobRequest(https_url="https://example.com/a.mp4"), model="m", filename="a.mp4",
    source_sha256="", created_at=1.0,
)  # fmt: skip


def test_what_is_fetched_becomes_an_upload_of_the_owner_that_no_other_job_has():
    assert JOB.upload == JOB.upload
    assert JOB.upload.owner == "me"
    assert JOB.upload != replace(JOB, job_id="other").upload
    assert replace(JOB, request=JobRequest(upload_id="u")).upload == Ref("me", "u")


def test_the_hash_of_what_was_fetched_is_kept_with_the_state():
    request, job = request_to_json(JOB), jobs.fetched(JOB, "0" * 64)
    assert job_from_json(request, state_to_json(job)).source_sha256 == "0" * 64
    assert job_from_json(request, None).source_sha256 == ""


def test_a_source_that_is_another_one_when_a_job_goes_on_ends_it():
    job = jobs.fetched(JOB, "0" * 64)
    assert jobs.fetched(job, "0" * 64) == job
    with pytest.raises(WrongState, match="another file"):
        jobs.fetched(job, "1" * 64)


@pytest.mark.parametrize("planned", [True, False])
def test_a_retry_fetches_again_only_what_was_of_no_use(planned: bool):
    summary = PlanSummary(
        model="m", pool="", fingerprint="f", source_width=2, source_height=2, width=2, height=2, frames=1, first_frame=0,
        spans=1, segments=1, duration_s=1.0, predicted_s=None, container="mp4",
    )  # fmt: skip
    job = replace(jobs.fetched(JOB, "0" * 64), plan=summary if planned else None)
    again = jobs.retried(jobs.cancelled(job, 2.0), 3.0)
    assert again.source_sha256 == ("0" * 64 if planned else "")
