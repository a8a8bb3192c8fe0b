import logging

import pytest

from services.common.errors import ClusterUnavailable, InternalError, ServiceError, StoreFull, StoreUnavailable
from services.gateway.jobs import State
from services.gateway.outages import Outage, log_failure, step_of
from services.gateway.progress import Progress
from tests.unit.gateway.examples import job

ERROR = StoreUnavailable("The object store doesn't answer.")
STEP = (1, 0)


def test_rests_grow_up_to_a_limit():
    outage, now, pauses = Outage(limit_s=600), 1000.0, []
    for _ in range(6):
        pauses.append(outage.next_pause(ERROR, STEP, now))
        now += pauses[-1]
    assert pauses == [1, 2, 4, 8, 15, 15]


def test_a_job_waits_as_long_as_allowed_and_then_fails_with_the_reason():
    outage, now, waited = Outage(limit_s=600), 1000.0, 0.0
    with pytest.raises(StoreUnavailable) as caught:
        while True:
            pause_s = outage.next_pause(ERROR, STEP, now)
            now, waited = now + pause_s + 30, waited + pause_s + 30
    assert caught.value is ERROR
    assert 600 <= waited < 650


def test_whoever_gets_further_has_all_the_time_again():
    outage = Outage(limit_s=100)
    assert outage.next_pause(ERROR, (2, 0), 0) == 1
    assert outage.next_pause(ERROR, (2, 0), 90) == 2
    assert outage.next_pause(ERROR, (2, 8), 180) == 1
    assert outage.next_pause(ERROR, (2, 8), 270) == 2
    # A run that is only on its way to where it was before is no step.
    with pytest.raises(StoreUnavailable):
        outage.next_pause(ERROR, (1, 0), 290)


def test_a_long_run_between_two_outages_is_no_waiting():
    outage = Outage(limit_s=600)
    outage.next_pause(ERROR, STEP, 0)
    assert outage.next_pause(ERROR, STEP, 7200) == 2


def test_a_job_without_patience_fails_at_once():
    with pytest.raises(StoreUnavailable):
        Outage(limit_s=0).next_pause(ERROR, STEP, 0)


def test_later_states_and_more_frames_are_further():
    joining = step_of(job(state=State.JOINING), Progress())
    assert step_of(job(), Progress()) < step_of(job(state=State.RESTORING), Progress(frames_done=8)) < joining


@pytest.mark.parametrize("error", [ERROR, StoreFull("It is full."), ClusterUnavailable("It doesn't answer.")])
def test_an_outage_is_told_in_a_line(error: ServiceError, caplog: pytest.LogCaptureFixture):
    log_failure(logging.getLogger("x"), "this can't be done now", error, job_id="a")
    record = caplog.records[0]
    assert (record.levelname, record.message) == ("WARNING", f"this can't be done now: {error.message}")
    assert (record.exc_info, vars(record)["job_id"]) == (None, "a")


@pytest.mark.parametrize("error", [InternalError("x"), KeyError("x")])
def test_what_nobody_expects_is_told_with_its_traceback(error: Exception, caplog: pytest.LogCaptureFixture):
    log_failure(logging.getLogger("x"), "this can't be done now", error)
    assert caplog.records[0].levelname == "ERROR"
    assert caplog.records[0].exc_info == (type(error), error, None)
