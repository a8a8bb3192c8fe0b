import json
from dataclasses import replace

from services.common.errors import InvalidVideo
from services.gateway import jobs
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Job
from services.gateway.webhooks.events import end_event


def _failed(now: float) -> Job:
    request = JobRequest(upload_id="u", webhook_url="https://example.com/hook", labels=(("order", "7"),))
    job = Job(job_id="film", request=request, model="nano", filename="a.mp4", source_sha256="0" * 64, created_at=1.0, owner="me")
    return jobs.failed(job, InvalidVideo("It has no video."), now)


def test_an_event_tells_the_job_as_the_api_does():
    event = end_event(_failed(1_700_000_000.0))
    record = json.loads(event.body)
    assert (event.kind, record["type"], record["timestamp"]) == ("job.failed", "job.failed", "2023-11-14T22:13:20+00:00")
    assert record["data"]["job_id"] == "film"
    assert record["data"]["state"] == "JOB_STATE_FAILED"
    assert record["data"]["failure"] == {"reason": "InvalidVideo", "code": 3, "message": "It has no video."}
    assert record["data"]["request"]["labels"] == {"order": "7"}


def test_an_event_is_the_same_at_every_try_and_another_one_after_a_retry():
    job = _failed(100.0)
    assert end_event(job) == end_event(replace(jobs.noted(job, "told later"), revision=9))
    again = jobs.failed(jobs.retried(job, 150.0), InvalidVideo("It has no video."), 200.0)
    assert end_event(again).event_id != end_event(job).event_id
    assert end_event(replace(job, owner="you")).event_id != end_event(job).event_id
