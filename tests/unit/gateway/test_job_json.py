import json
from dataclasses import replace

import pytest

from services.common.errors import NewerRelease, StoreFull
from services.gateway import jobs
from services.gateway.job_json import OtherJob, job_from_json, request_to_json, state_to_json
from services.gateway.job_request import JobRequest
from services.gateway.keys import Ref
from tests.unit.gateway.examples import RESULT, job, joining


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
        assert job_from_json(request_to_json(whole), state_to_json(whole)) == whole


def test_a_job_without_a_state_is_pending():
    assert job_from_json(request_to_json(job()), None) == job()


def test_a_job_with_what_this_release_does_not_know_is_shown_without_it():
    known = job()
    request, state = request_to_json(known), state_to_json(known)
    assert not job_from_json(request, state).newer
    asked = request.replace(b'"upload_id"', b'"grain": 2, "upload_id"')
    told = state.replace(b'"fence"', b'"mood": "good", "fence"')
    for found in (
        job_from_json(asked, state),
        job_from_json(request, told),
        job_from_json(asked, None),
    ):
        assert found == replace(known, newer=True)
    assert b"newer" not in request + state


def test_a_job_of_another_schema_is_refused():
    with pytest.raises(NewerRelease, match="schema version 2"):
        job_from_json(request_to_json(job()).replace(b'"schema_version": 1', b'"schema_version": 2'), None)


def test_a_job_that_was_stored_without_an_owner_is_local():
    stored = json.loads(request_to_json(job(owner="b")))
    assert job_from_json(json.dumps(stored).encode(), None).ref == Ref("b", "a")
    del stored["owner"]
    assert job_from_json(json.dumps(stored).encode(), None).ref == Ref("local", "a")


def test_a_state_of_an_earlier_job_of_the_same_id_is_refused():
    with pytest.raises(OtherJob):
        job_from_json(request_to_json(job()), state_to_json(job(created_at=11.0)))


def test_what_a_later_release_wrote_more_is_passed_over_wherever_it_is():
    request, state = json.loads(request_to_json(joining())), json.loads(state_to_json(joining()))
    for record in (request, request["request"], state, state["plan"]):
        record["later"] = 1
    assert job_from_json(json.dumps(request).encode(), json.dumps(state).encode()) == replace(joining(), newer=True)
