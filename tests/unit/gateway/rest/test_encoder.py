from typing import Any

import pytest

from services.common.errors import StoreFull
from services.gateway import jobs
from services.gateway.jobs import State
from services.gateway.progress import CUTS, JOIN, Progress, shown_progress
from services.gateway.rest.encoder import encode_video, percent
from tests.unit.gateway.examples import job
from tests.unit.gateway.test_jobs import RESULT, SUMMARY, joining


@pytest.mark.parametrize(
    ("now", "progress", "done"),
    [
        (job(), {}, 0),
        (job(state=State.PLANNING), {"stage": CUTS, "stage_fraction": 0.5}, 2),
        (job(state=State.RESTORING, plan=SUMMARY), {"frames_done": 0, "frames_total": 24}, 5),
        (job(state=State.RESTORING, plan=SUMMARY), {"frames_done": 12, "frames_total": 24}, 50),
        (job(state=State.RESTORING, plan=SUMMARY), {"frames_done": 24, "frames_total": 24}, 95),
        (joining(), {"stage": JOIN, "frames_done": 24, "frames_total": 24}, 95),
        (jobs.succeeded(joining(), RESULT, 20), {}, 100),
        (jobs.cancelled(job(), 20), {"stage": CUTS, "stage_fraction": 0.5}, 0),
    ],
)
def test_percents_grow_to_a_hundred_which_is_the_end_only(now: jobs.Job, progress: dict[str, Any], done: int):
    assert percent(now, shown_progress(now, Progress(**progress))) == done


def test_a_failed_job_says_why():
    video = encode_video(jobs.failed(joining(), StoreFull("No space."), 15), Progress(stage="dit", time_left_s=4.0))
    assert (video["status"], video["state"], video["completed_at"]) == ("failed", "failed", 15)
    assert video["error"] == {"code": "StoreFull", "message": "No space."}
    assert (video["work"]["stage"], video["work"]["seconds_left"], video["result"]) == ("", None, None)


def test_a_job_that_succeeded_has_size_and_length_as_openai_writes_them():
    video = encode_video(jobs.succeeded(joining(), RESULT, 20.7), Progress())
    assert (video["size"], video["seconds"], video["created_at"], video["completed_at"]) == ("128x96", "0.96", 10, 20)
    assert video["result"]["sha256"] == "e" * 64
