import pytest
from google.protobuf import duration_pb2

from services.common.errors import InvalidOption
from services.common.fleet import ModelState
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.gateway import codec, jobs
from services.gateway.catalogue import KnownModel
from services.gateway.job_request import JobRequest
from services.gateway.jobs import State
from services.gateway.progress import Progress
from tests.unit.gateway.examples import MODEL, job, view
from tests.unit.gateway.test_jobs import RESULT, joining


@pytest.mark.parametrize(
    "request_",
    [
        JobRequest(upload_id="u"),
        JobRequest(upload_id="u", scale=1.5, frames=(3, 0), seed=0, crf=0, colour="none", preview=True, container="mkv"),
        JobRequest(upload_id="u", short_side=720, time_ns=(1_500_000_000, None), model="nano", pool="p", labels=(("a", "b"),)),
        JobRequest(
            upload_id="u",
            box=(1920, 1080),
            time_ns=(0, 2_000_000_001),
            colour="wavelet_adaptive",
            input_noise=0.25,
            encoder="nvenc",
            latent_noise=1.0,
            steps=4,
            cfg_scale=2.0,
        ),
    ],
)
def test_a_request_is_read_back_as_it_was_written(request_: JobRequest):
    assert codec.decode_request(codec.encode_request(request_)) == request_


def test_other_sources_arrive_as_what_they_are():
    assert codec.decode_request(pb.JobRequest(source=pb.Source(https_url="https://a/b"))).https_url == "https://a/b"
    assert codec.decode_request(pb.JobRequest(source=pb.Source(object_uri="s3://a/b"))).object_uri == "s3://a/b"


@pytest.mark.parametrize(("message", "field"), [({"colour": 99}, "request.colour"), ({"priority": 7}, "request.priority")])
def test_a_number_without_a_name_is_refused_by_its_field(message: dict[str, int], field: str):
    with pytest.raises(InvalidOption) as error:
        codec.decode_request(pb.JobRequest(**message))
    assert error.value.field == field


def test_states_are_read_by_number():
    assert codec.decode_states([pb.JOB_STATE_FAILED, pb.JOB_STATE_JOINING]) == [State.FAILED, State.JOINING]
    for wrong in (0, 99):
        with pytest.raises(InvalidOption):
            codec.decode_states([wrong])


@pytest.mark.parametrize("state", list(State))
def test_every_state_has_a_number(state: State):
    assert pb.JobState.Name(codec.encode_job(job(state=state), Progress()).state) == f"JOB_STATE_{state}"


def test_a_job_that_succeeded_shows_its_result_and_all_its_frames():
    message = codec.encode_job(jobs.succeeded(joining(), RESULT, 20), Progress(stage="join"))
    assert (message.progress.stage, message.progress.frames_done, message.progress.segments_total) == ("", 24, 3)
    assert (message.result.sha256, message.result.duration) == ("e" * 64, duration_pb2.Duration(nanos=960_000_000))
    assert list(message.plan.warnings) == ["one"]
    assert (message.created_at.seconds, message.started_at.seconds, message.ended_at.seconds) == (10, 12, 20)
    assert not message.plan.HasField("predicted_time")
    assert dict(message.progress.stage_seconds) == {"dit": 2.0}


def test_a_job_that_failed_says_why_with_the_canonical_code():
    failed = jobs.failed(job(), InvalidOption("no"), 20)
    message = codec.encode_job(failed, Progress())
    assert (message.failure.reason, message.failure.code, message.failure.message) == ("InvalidOption", 3, "no")
    assert not message.HasField("result")


def test_a_running_job_shows_what_is_being_done():
    progress = Progress(stage="dit", stage_fraction=0.5, frames_done=5, time_left_s=1.5, stage_seconds={"dit": 2.0})
    message = codec.encode_job(joining(), progress).progress
    assert (message.stage, message.frames_done, message.frames_total, message.time_left.nanos) == ("dit", 5, 24, 500_000_000)
    assert dict(message.stage_seconds) == {"dit": 2.0}
    assert message.stage_fraction == 0.5


def test_a_lost_worker_is_shown_with_what_it_last_said():
    message = codec.encode_worker(view(lost=True, facts={"device": "cpu"}))
    assert (message.state, message.device, message.free_slots, list(message.models)) == ("lost", "cpu", 0, [MODEL.name])


def test_models_that_are_served_come_first_and_all_say_how_they_are_installed():
    served = [KnownModel(model=MODEL, ready=True, pools=("p",))]
    installed = {
        "big": ModelState(name="big", title="Big", state="ready", size_bytes=7),
        "nano": ModelState(name="nano", title="Nano", state="foreign"),
    }
    nano, big = codec.encode_models(served, installed)
    assert (nano.name, nano.ready, nano.installed, list(nano.pools)) == ("nano", True, "foreign", ["p"])
    assert (big.title, big.ready, big.installed, big.size_bytes, list(big.pools)) == ("Big", False, "ready", 7, [])
