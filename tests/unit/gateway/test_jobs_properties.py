"""What holds for a job whatever happens to it, in whatever order."""

import contextlib
from collections.abc import Callable
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import FingerprintChanged, StoreFull, WrongState
from services.gateway import job_json, jobs
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Job, State
from tests.unit.gateway.examples import job
from tests.unit.gateway.strategies import RESULTS, SUMMARIES, requests

Event = Callable[[Job, float], Job]

_ERRORS = st.builds(lambda cls, text: cls(text), st.sampled_from((StoreFull, FingerprintChanged)), st.text(max_size=20))


def _go_on(job: Job, now: float) -> Job:
    """As the driver does with a plan that is stored."""
    return jobs.advance(job, State.RESTORING, now) if job.plan is not None else jobs.advance(job, State.PLANNING, now)


EVENTS: st.SearchStrategy[Event] = st.one_of(
    st.just(_go_on),
    st.builds(lambda plan: lambda job, now: jobs.planned(job, plan, now), SUMMARIES),
    st.builds(lambda note: lambda job, now: jobs.noted(job, note), st.text(max_size=5)),
    st.builds(lambda note: lambda job, now: jobs.replanning(job, note, now), st.text(max_size=5)),
    st.just(lambda job, now: jobs.advance(job, State.JOINING, now)),
    st.builds(lambda result: lambda job, now: jobs.succeeded(job, result, now), RESULTS),
    st.builds(lambda error: lambda job, now: jobs.failed(job, error, now), _ERRORS),
    st.just(jobs.cancelled),
    st.just(jobs.retried),
)
"""Everything that can happen to a job."""


def _happened(events: list[Event]) -> list[Job]:
    """A job after each of them, a second apart; those that are refused change nothing."""
    found, now = [job()], 10.0
    for event in events:
        now += 1
        with contextlib.suppress(WrongState):
            found.append(event(found[-1], now))
    return found


@given(st.lists(EVENTS, max_size=30))
def test_a_job_says_when_it_ended_why_and_with_what_and_only_then(events: list[Event]):
    for now in _happened(events):
        assert (now.ended_at is not None) == now.state.ended
        assert (now.failure is not None) == (now.state is State.FAILED)
        assert (now.result is not None) == (now.state is State.SUCCEEDED)


@given(st.lists(EVENTS, max_size=30))
def test_a_job_is_never_restored_or_joined_without_a_plan(events: list[Event]):
    for now in _happened(events):
        if now.state in (State.RESTORING, State.JOINING, State.SUCCEEDED):
            assert now.plan is not None


@given(st.lists(EVENTS, max_size=30))
def test_times_go_forward(events: list[Event]):
    for now in _happened(events):
        stamps = [now.created_at, now.asked_at, now.started_at, now.ended_at]
        known = [stamp for stamp in stamps if stamp is not None]
        assert known == sorted(known)


@given(st.lists(EVENTS, max_size=30))
def test_success_is_final(events: list[Event]):
    states = [now.state for now in _happened(events)]
    if State.SUCCEEDED in states:
        assert set(states[states.index(State.SUCCEEDED) :]) == {State.SUCCEEDED}


@given(st.lists(EVENTS, max_size=30))
def test_from_wherever_it_is_a_job_can_still_come_to_an_end(events: list[Event]):
    last = _happened(events)[-1]
    assert (
        last.state is State.SUCCEEDED or jobs.cancelled(last if not last.state.ended else jobs.retried(last, 99), 100).state.ended
    )


@given(st.lists(EVENTS, max_size=80))
def test_notes_are_new_and_no_more_than_people_read(events: list[Event]):
    notes = _happened(events)[-1].notes
    assert len(set(notes)) == len(notes) <= 50


@given(st.lists(EVENTS, max_size=15), requests(), st.integers(0, 99), st.integers(0, 99))
def test_a_job_is_read_back_as_it_was_written(events: list[Event], request: JobRequest, revision: int, fence: int):
    for now in _happened(events):
        whole = replace(now, request=request, revision=revision, fence=fence)
        assert job_json.job_from_json(job_json.request_to_json(whole), job_json.state_to_json(whole)) == whole


@given(st.sampled_from(State), st.sampled_from(State))
def test_what_is_refused_says_what_to_do(before: State, after: State):
    refusals: list[str] = []
    try:
        assert jobs.advance(job(state=before), after, 20).state is after
    except WrongState as refusal:
        refusals.append(refusal.message)
    assert all(r.startswith(f"The job is {before}; ") and r.endswith(".") for r in refusals)
