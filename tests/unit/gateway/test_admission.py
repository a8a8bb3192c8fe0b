from dataclasses import replace

import pytest

from services.common.errors import QueueFull
from services.gateway.admission import Left, QueueLimits, check_queue, megapixels_before, seconds
from services.gateway.job_request import JobRequest
from tests.unit.gateway.examples import job
from tests.unit.gateway.test_jobs import SUMMARY

PLAN = replace(SUMMARY, frames=100, width=1000, height=1000)
LIMITS = QueueLimits(jobs=4, owner_jobs=2)


def left(owner: str = "a", done: int = 0, *, preview: bool = False, planned: bool = True) -> Left:
    request = JobRequest(upload_id="u", preview=preview)
    return Left(job=job(owner=owner, request=request, plan=PLAN if planned else None), frames_done=done)


def test_what_is_left_of_a_job_is_what_is_not_done():
    assert (left().megapixels, left(done=40).megapixels, left(done=101).megapixels, left(planned=False).megapixels) == (
        100,
        60,
        0,
        0,
    )


def test_there_is_room_up_to_the_limits():
    check_queue([left("a"), left("b"), left("c")], "a", LIMITS, 0)


@pytest.mark.parametrize(
    ("active", "words"),
    [([left("a")] * 2, "2 jobs of yours are waiting"), ([left("b"), left("c"), left("d"), left("d")], "4 jobs are waiting")],
)
def test_more_are_refused_with_the_reason(active: list[Left], words: str):
    with pytest.raises(QueueFull, match=words):
        check_queue(active, "a", LIMITS, 0)


@pytest.mark.parametrize(
    ("active", "speed", "retry_after_s"),
    [
        ([left(), left(done=80)], 2.0, 10),
        ([left(), left(done=80)], 0.0, 30),
        ([left(planned=False)] * 2, 2.0, 30),
        ([left(), left(done=100)], 2.0, 1),
        ([left(), left()], 0.01, 600),
    ],
)
def test_whoever_is_refused_hears_when_the_next_place_may_be_free(active: list[Left], speed: float, retry_after_s: float):
    with pytest.raises(QueueFull) as caught:
        check_queue(active, "a", LIMITS, speed)
    assert caught.value.retry_after_s == retry_after_s


def test_a_new_job_waits_for_its_owner_and_for_as_much_of_each_other_as_the_owner_gets():
    assert megapixels_before([], "a", 50, preview=False) == 0
    assert megapixels_before([left("a"), left("a", 90)], "a", 50, preview=False) == 110
    assert megapixels_before([left("b"), left("b")], "a", 50, preview=False) == 50
    assert megapixels_before([left("b", 70), left("c"), left("a", 90)], "a", 50, preview=False) == 10 + 30 + 60


def test_previews_go_before_batch_work():
    active = [left("b", preview=True), left("c")]
    assert megapixels_before(active, "a", 10, preview=True) == 10
    assert megapixels_before(active, "a", 10, preview=False) == 100 + 10


def test_time_is_told_where_a_speed_is_known():
    assert (seconds(10, 2), seconds(10, 0)) == (5, None)
