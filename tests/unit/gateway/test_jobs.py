import itertools

import pytest

from services.common.errors import FingerprintChanged, StoreFull, WrongState
from services.gateway import job_json, jobs
from services.gateway.jobs import State
from tests.unit.gateway.examples import RESULT, SUMMARY, job, joining


def test_a_job_goes_from_pending_to_succeeded():
    done = jobs.succeeded(joining(), RESULT, 20)
    assert (done.state, done.started_at, done.ended_at, done.result) == (State.SUCCEEDED, 12, 20, RESULT)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(State, State)))
def test_no_ended_job_goes_on_except_by_a_retry(before: State, after: State):
    if before.ended and not (after is State.PENDING and before is not State.SUCCEEDED):
        with pytest.raises(WrongState, match=f"The job is {before}"):
            jobs.advance(job(state=before), after, 1)


@pytest.mark.parametrize("state", [s for s in State if not s.ended])
def test_every_job_that_has_not_ended_can_be_cancelled_and_can_fail(state: State):
    assert jobs.cancelled(job(state=state), 5).ended_at == 5
    assert jobs.failed(job(state=state), StoreFull("full"), 5).failure == jobs.Failure(reason="StoreFull", message="full")


def test_cancelling_twice_is_cancelling_once():
    once = jobs.cancelled(job(), 5)
    assert jobs.cancelled(once, 6) is once


def test_a_retry_begins_anew_and_keeps_the_plan():
    failed = jobs.failed(jobs.noted(joining(), "lost"), StoreFull("full"), 15)
    again = jobs.retried(failed, 30)
    assert (again.state, again.plan, again.failure, again.notes, again.ended_at) == (State.PENDING, SUMMARY, None, (), None)
    assert (again.created_at, again.asked_at, again.started_at) == (10, 30, None)


def test_a_job_that_is_tried_again_goes_on_with_the_plan_that_it_has():
    again = jobs.retried(jobs.cancelled(joining(), 15), 30)
    assert jobs.advance(again, State.RESTORING, 31).started_at == 31


def test_a_retry_after_a_changed_fingerprint_drops_the_plan():
    assert jobs.retried(jobs.failed(joining(), FingerprintChanged("gone"), 15), 30).plan is None


def test_a_job_is_planned_anew_with_a_note():
    again = jobs.replanning(jobs.advance(joining(), State.RESTORING, 13), "others restore it", 14)
    assert (again.state, again.plan, again.replanned, again.notes) == (State.PLANNING, None, True, ("others restore it",))


def test_the_same_note_is_taken_once_and_no_more_than_people_read():
    assert jobs.noted(jobs.noted(job(), "a"), "a").notes == ("a",)
    many = job()
    for number in range(100):
        many = jobs.noted(many, str(number))
    assert len(many.notes) == 50


def test_workers_that_were_lost_on_a_span_are_kept_until_it_goes_on_or_the_job_is_retried():
    lost = jobs.span_lost(jobs.span_lost(jobs.span_lost(job(), 1, "w1"), 1, "w2"), 2, "w1")
    assert jobs.span_lost(lost, 1, "w2") == lost
    assert jobs.lost_on(lost, 1) == ("w1", "w2")
    again = job_json.job_from_json(job_json.request_to_json(lost), job_json.state_to_json(lost))
    assert again.span_losses == lost.span_losses
    assert jobs.span_went_on(lost, 1).span_losses == ((2, "w1"),)
    assert jobs.retried(jobs.failed(lost, StoreFull("x"), 20), 21).span_losses == ()


def test_only_a_job_that_has_ended_is_deleted():
    with pytest.raises(WrongState, match="cancel it"):
        jobs.deleting(job())
    assert jobs.deleting(jobs.cancelled(job(), 5)).deleting


def test_a_retry_shuts_out_whoever_still_lets_go_of_the_run_before():
    assert jobs.retried(jobs.cancelled(job(fence=4), 5), 30).fence == 5
