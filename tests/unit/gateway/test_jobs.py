import itertools
import json
from dataclasses import replace

import pytest

from services.common.errors import FingerprintChanged, NewerRelease, StoreFull, WrongState
from services.gateway import jobs
from services.gateway.jobs import JobRequest, PlanSummary, Result, State
from services.gateway.keys import Ref
from tests.unit.gateway.examples import job

SUMMARY = PlanSummary(
    model="nano", pool="", fingerprint="f", source_width=64, source_height=48, width=128, height=96, frames=24, first_frame=0,
    spans=1, segments=3, duration_s=0.96, predicted_s=None, container="mp4", warnings=("one",),
)  # fmt: skip
RESULT = Result(
    filename="a_restored.mp4", media_type="video/mp4", size_bytes=5, sha256="e" * 64, width=128, height=96, frames=24,
    duration_s=0.96, elapsed_s=3.0, stage_seconds={"dit": 2.0},
)  # fmt: skip


def joining(now: float = 12.0) -> jobs.Job:
    return jobs.advance(jobs.planned(jobs.advance(job(), State.PLANNING, 11), SUMMARY, now), State.JOINING, now)


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


@pytest.mark.parametrize(
    "request_",
    [
        JobRequest(upload_id="u", box=(4, 5), frames=(1, 0), labels=(("a", "b"),), seed=0, crf=0),
        JobRequest(upload_id="u", scale=1.5, time_ns=(10, None)),
        JobRequest(upload_id="u", short_side=720, time_ns=(10, 20), preview=True),
    ],
)
def test_a_job_is_read_back_as_it_was_written(request_: JobRequest):
    for state in (joining(), jobs.succeeded(joining(), RESULT, 20), jobs.failed(joining(), StoreFull("full"), 15)):
        whole = jobs.Job(**{f: getattr(state, f) for f in jobs.Job.__slots__} | {"request": request_})
        assert jobs.job_from_json(jobs.request_to_json(whole), jobs.state_to_json(whole)) == whole


def test_a_job_without_a_state_is_pending():
    assert jobs.job_from_json(jobs.request_to_json(job()), None) == job()


def test_a_job_with_what_this_release_does_not_know_is_shown_without_it():
    known = job()
    request, state = jobs.request_to_json(known), jobs.state_to_json(known)
    assert not jobs.job_from_json(request, state).newer
    asked = request.replace(b'"upload_id"', b'"grain": 2, "upload_id"')
    told = state.replace(b'"fence"', b'"mood": "good", "fence"')
    for found in (jobs.job_from_json(asked, state), jobs.job_from_json(request, told), jobs.job_from_json(asked, None)):
        assert found == replace(known, newer=True)
    assert b"newer" not in request + state


def test_a_job_of_another_schema_is_refused():
    with pytest.raises(NewerRelease, match="schema version 2"):
        jobs.job_from_json(jobs.request_to_json(job()).replace(b'"schema_version": 1', b'"schema_version": 2'), None)


def test_a_job_that_was_stored_without_an_owner_is_local():
    stored = json.loads(jobs.request_to_json(job(owner="b")))
    assert jobs.job_from_json(json.dumps(stored).encode(), None).ref == Ref("b", "a")
    del stored["owner"]
    assert jobs.job_from_json(json.dumps(stored).encode(), None).ref == Ref("local", "a")


def test_workers_that_were_lost_on_a_span_are_kept_until_it_goes_on_or_the_job_is_retried():
    lost = jobs.span_lost(jobs.span_lost(jobs.span_lost(job(), 1, "w1"), 1, "w2"), 2, "w1")
    assert jobs.span_lost(lost, 1, "w2") == lost
    assert jobs.lost_on(lost, 1) == ("w1", "w2")
    again = jobs.job_from_json(jobs.request_to_json(lost), jobs.state_to_json(lost))
    assert again.span_losses == lost.span_losses
    assert jobs.span_went_on(lost, 1).span_losses == ((2, "w1"),)
    assert jobs.retried(jobs.failed(lost, StoreFull("x"), 20), 21).span_losses == ()


def test_a_state_of_an_earlier_job_of_the_same_id_is_refused():
    with pytest.raises(jobs.OtherJob):
        jobs.job_from_json(jobs.request_to_json(job()), jobs.state_to_json(job(created_at=11.0)))


def test_only_a_job_that_has_ended_is_deleted():
    with pytest.raises(WrongState, match="cancel it"):
        jobs.deleting(job())
    assert jobs.deleting(jobs.cancelled(job(), 5)).deleting


def test_a_retry_shuts_out_whoever_still_lets_go_of_the_run_before():
    assert jobs.retried(jobs.cancelled(job(fence=4), 5), 30).fence == 5


def test_what_a_later_release_wrote_more_is_passed_over_wherever_it_is():
    request, state = json.loads(jobs.request_to_json(joining())), json.loads(jobs.state_to_json(joining()))
    for record in (request, request["request"], state, state["plan"]):
        record["later"] = 1
    assert jobs.job_from_json(json.dumps(request).encode(), json.dumps(state).encode()) == replace(joining(), newer=True)
