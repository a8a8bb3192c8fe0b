"""What dies, stops or fills up in the middle of a job, and how the job goes on."""

import asyncio
import json
import signal
import socket
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio

from services.common.client import GatewayClient
from services.common.errors import WorkerUnavailable
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.gateway.keys import Ref, active
from tests.clips import make
from tests.integration.gateway_calls import finished, objects, read_all, refused, request, until
from tests.integration.processes import Process, echo_worker, gateway, running
from tests.integration.rig import rig, undisturbed_sha256

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

FRAMES = 32


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.video(tmp_path_factory.mktemp("clip") / "a.mp4", frames=FRAMES, audio="aac")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the result when nothing goes wrong."""
    return await undisturbed_sha256(tmp_path_factory.mktemp("undisturbed"), clip)


# ---- deaths ----


async def test_a_worker_that_is_killed_and_comes_back_finishes_the_span(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.begun()
        await it.workers[0].kill()
        waiting = await until(it.client, "job", lambda job: job.progress.stage == "waiting")
        assert waiting.state == pb.JOB_STATE_RESTORING
        it.hold.unlink()
        await it.workers[0].restart()
        job = await it.end()
        assert job.result.sha256 == undisturbed
        assert "Frames 0 to 32 were sent again" in job.notes[0]
        assert [span["stored"] for span in it.spans()] == [[], [0]]


async def test_a_span_that_kills_three_workers_fails_its_job_and_spares_the_fleet(clip: Path, tmp_path: Path):
    async with rig(tmp_path, clip, workers=5, deadly_frame=20) as it:
        await it.client.create_job(request(it.upload), "deadly")
        job = await it.end("deadly")
        assert (job.state, job.failure.reason) == (pb.JOB_STATE_FAILED, "SpanFatal"), job
        assert "from frame 0 to 32 took 3 workers along" in job.failure.message
        assert len({span["pid"] for span in it.spans()}) == 3
        await it.client.create_job(request(it.upload, frames=(0, 16)), "harmless")
        await finished(it.client, "harmless")


async def test_workers_that_a_span_took_along_are_counted_across_gateways(clip: Path, tmp_path: Path):
    async with rig(tmp_path, clip, workers=3, deadly_frame=20) as it:
        await it.workers[2].kill()
        await it.client.create_job(request(it.upload), "job")
        for worker in it.workers[:2]:
            await worker.wait()
        state = it.store / "store/owners/local/jobs/job/state.json"
        async with asyncio.timeout(20):
            while len(json.loads(state.read_bytes())["span_losses"]) < 2:
                await asyncio.sleep(0.05)
        await it.gateway.kill()
        await it.gateway.restart()
        await it.workers[2].restart()
        job = await it.end()
        assert (job.state, job.failure.reason) == (pb.JOB_STATE_FAILED, "SpanFatal"), job
        assert all(worker.address in job.failure.message for worker in it.workers)


async def test_a_worker_that_is_killed_is_replaced_by_another(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip, workers=2) as it:
        await it.begun()
        victim = it.spans()[0]["pid"]
        await next(w for w in it.workers if w.ready["pid"] == victim).kill()
        job = await it.end()
        assert job.result.sha256 == undisturbed
        assert it.spans()[1]["pid"] != victim


async def test_a_gateway_that_is_killed_goes_on_after_a_restart(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.begun()
        await it.gateway.kill()
        it.hold.unlink()
        await it.gateway.restart()
        job = await it.end()
        assert job.result.sha256 == undisturbed
        assert [span["stored"] for span in it.spans()] == [[], [0]]


async def test_a_gateway_that_is_killed_right_after_creating_a_job_has_not_lost_it(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        for number in range(3):
            await it.client.create_job(request(it.upload, labels={"n": str(number)}), f"job-{number}")
        await it.gateway.kill()
        await it.gateway.restart()
        for number in range(3):
            assert (await it.end(f"job-{number}")).result.sha256 == undisturbed


async def test_a_gateway_that_is_told_to_stop_hands_its_jobs_to_the_next(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.begun()
        assert await it.gateway.end(signal.SIGTERM) == 0
        it.hold.unlink()
        await it.gateway.restart()
        assert (await it.end()).result.sha256 == undisturbed


async def test_a_segment_that_was_damaged_in_the_store_is_restored_again(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.begun()
        stored = next((it.store / "store").rglob("00000000-00000008.mp4"))
        stored.write_bytes(make.video(tmp_path / "other.mp4", frames=5).read_bytes())
        job = await it.end()
        assert job.result.sha256 == undisturbed
        assert "were not stored whole" in job.notes[-1]


async def test_a_job_stays_with_workers_like_those_that_began_it_while_others_come(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.begun()
        later = echo_worker(tmp_path / "later", fingerprint="echo-2", log_file=tmp_path / "later-spans")
        async with running(later):
            await it.gateway.kill()
            await it.gateway.restart(workers=f"{later.address},{it.workers[0].address}")
            job = await it.end()
            assert (job.result.sha256, job.plan.fingerprint, list(job.notes)) == (undisturbed, "echo-1", [])
    assert not (tmp_path / "later-spans").exists()


async def test_workers_of_another_fingerprint_begin_the_job_anew(clip: Path, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.begun()
        await it.workers[0].kill()
        it.hold.unlink()
        await it.workers[0].restart(fingerprint="echo-2")
        job = await it.end()
        assert (job.state, job.plan.fingerprint) == (pb.JOB_STATE_SUCCEEDED, "echo-2")
        assert any("planned anew" in note for note in job.notes)
        await it.client.delete_job("job")
        await it.client.delete_upload(it.upload.upload_id)
        assert objects(it.store) == []


# ---- while it runs ----


async def test_what_is_restored_can_be_seen_while_the_rest_is_not(clip: Path, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.begun()
        playlist = await it.client.playlist("job")
        assert (playlist.complete, playlist.segments) == (False, 1)
        assert "#EXT-X-ENDLIST" not in playlist.m3u8
        assert await read_all(await it.client.read_result("job", segment=0))
        assert (await it.client.frame("job", pb.FRAME_OF_RESULT, 7)).startswith(b"\x89PNG")
        early = grpc.StatusCode.FAILED_PRECONDITION
        for call, text in (
            (it.client.frame("job", pb.FRAME_OF_RESULT, 8), "not restored yet"),
            (it.client.read_result("job", segment=1), "not restored yet"),
            (it.client.read_result("job"), "has no result"),
            (it.client.quality_report("job"), "has no report"),
            (it.client.retry_job("job"), "cancel it"),
            (it.client.delete_job("job"), "cancel it"),
            (it.client.delete_upload(it.upload.upload_id), "still needs this upload"),
        ):
            with refused(early, "WrongState", text):
                await call
        assert (await it.end()).state == pb.JOB_STATE_SUCCEEDED


async def test_a_cancelled_job_frees_its_worker_and_a_retry_uses_what_is_stored(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.begun()
        cancelled = await it.client.cancel_job("job")
        assert cancelled.state == pb.JOB_STATE_CANCELLED
        assert (await it.client.cancel_job("job")).revision == cancelled.revision
        it.hold.unlink()
        await it.client.create_job(request(it.upload, frames=(0, 4)), "other")
        await finished(it.client, "other")
        assert (await it.client.retry_job("job")).state == pb.JOB_STATE_PENDING
        job = await it.end()
        assert job.result.sha256 == undisturbed
        assert it.spans()[-1]["stored"] == [0]


async def test_a_cancelled_job_can_be_deleted_with_all_it_has(clip: Path, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.begun()
        await it.client.cancel_job("job")
        await it.client.delete_job("job")
        await it.client.delete_upload(it.upload.upload_id)
        assert objects(it.store) == []


async def test_a_deletion_that_was_interrupted_is_finished_at_the_next_start(clip: Path, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.client.create_job(request(it.upload), "job")
        await finished(it.client, "job")
        await it.gateway.kill()
        state = it.store / "store/owners/local/jobs/job/state.json"
        state.write_text(json.dumps({**json.loads(state.read_text()), "deleting": True}))
        mark = it.store / "store" / active(Ref("local", "job"))
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
        await it.gateway.restart()
        assert not [key for key in objects(it.store) if "uploads" not in key]
        assert not (await it.client.list_jobs()).jobs


# ---- workers that fail ----


async def test_a_span_that_fails_again_and_again_ends_the_job_with_the_reason(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip, fail_with="WorkerBroken", fail_times=3) as it:
        await it.client.create_job(request(it.upload), "job")
        job = await it.end()
        assert (job.state, job.failure.reason, job.failure.code) == (pb.JOB_STATE_FAILED, "WorkerBroken", 14)
        assert "failed 3 times" in job.failure.message
        await it.client.retry_job("job")
        assert (await it.end()).result.sha256 == undisturbed


@pytest.mark.parametrize("error", ["GpuOutOfMemory", "QueueFull", "DeadlinePassed"])
async def test_a_span_that_fails_once_is_sent_again(clip: Path, undisturbed: str, tmp_path: Path, error: str):
    async with rig(tmp_path, clip, fail_with=error, fail_times=1) as it:
        await it.client.create_job(request(it.upload), "job")
        assert (await it.end()).result.sha256 == undisturbed


async def test_an_error_that_no_retry_can_help_ends_the_job_at_once(clip: Path, tmp_path: Path):
    async with rig(tmp_path, clip, fail_with="InvalidVideo", fail_times=1) as it:
        await it.client.create_job(request(it.upload), "job")
        job = await it.end()
        assert (job.failure.reason, job.failure.code) == ("InvalidVideo", 3)
        assert len(it.spans()) == 1


async def test_without_any_worker_a_job_is_refused_and_leaves_nothing(clip: Path, tmp_path: Path):
    process = gateway(tmp_path / "gateway", "127.0.0.1:1")
    async with running(process), GatewayClient(process.address) as client:
        upload = await client.upload_file(clip)
        before = objects(process._directory)
        with pytest.raises(WorkerUnavailable, match="start one") as caught:
            await client.create_job(request(upload), "job")
        assert caught.value.retry_after_s == 5
        assert objects(process._directory) == before
        assert [w.state for w in (await client.cluster_status()).workers] == ["lost"]


async def test_a_job_waits_for_a_worker_that_is_away_and_can_be_cancelled_meanwhile(clip: Path, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.workers[0].kill()
        for job_id in ("first", "second"):
            await it.client.create_job(request(it.upload), job_id)
            job = await until(it.client, job_id, lambda job: job.progress.stage == "waiting")
            assert not job.failure.reason
        assert (await it.client.cancel_job("second")).state == pb.JOB_STATE_CANCELLED
        await it.workers[0].restart()
        assert (await it.end("first")).state == pb.JOB_STATE_SUCCEEDED


async def test_a_job_whose_worker_stays_away_fails_in_the_end(clip: Path, tmp_path: Path):
    async with rig(tmp_path, clip, settings={"worker_wait_s": 1}) as it:
        await it.begun()
        await it.workers[0].kill()
        job = await it.end()
        assert (job.failure.reason, job.failure.code) == ("WorkerUnavailable", 14)
        assert "start one, then retry the job" in job.failure.message


# ---- disk, ports, settings ----


async def test_a_full_disk_loses_nothing(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.begun()
        await it.client.create_upload("half.mp4", 0, "half")
        await it.gateway.kill()
        it.hold.unlink()
        await it.gateway.restart(store_min_free_bytes=1 << 60)
        job = await it.end()
        assert (job.state, job.failure.reason, job.failure.code) == (pb.JOB_STATE_FAILED, "StoreFull", 8)
        full = grpc.StatusCode.RESOURCE_EXHAUSTED
        for call in (it.client.create_upload("b.mp4"), it.client.create_job(request(it.upload), "b"), it.client.retry_job("job")):
            with refused(full, "StoreFull", "delete jobs or uploads"):
                await call
        assert not [key for key in objects(it.store) if "jobs/b/" in key]
        assert (await it.client.get_upload("half")).received_bytes == 0
        await it.gateway.end()
        await it.gateway.restart(store_min_free_bytes=0)
        await it.client.retry_job("job")
        assert (await it.end()).result.sha256 == undisturbed


async def test_a_port_that_is_taken_is_said_in_one_line(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        for number, settings in enumerate(({"address": address}, {"metrics_address": address})):
            process = gateway(tmp_path / str(number), "127.0.0.1:1", **settings)
            await process.start(ready=False)
            assert await process.wait() == 2
            said = [line for line in process.log.splitlines() if not line.startswith("{")]
            assert len(said) == 1
            assert address in said[0]
            assert "choose another" in said[0]


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"workers": "nonsense"}, "pool=host:port"),
        ({"store_directory": "/proc/nowhere"}, "choose another directory"),
        ({"segment_frames": 0}, "segment_frames is 0"),
        ({"colour": "blue"}, "SEEDVR2_GATEWAY_COLOUR is not a setting"),
    ],
)
async def test_a_wrong_setting_is_said_in_one_line(tmp_path: Path, settings: dict[str, Any], text: str):
    values = {"workers": "127.0.0.1:1", "store_directory": tmp_path / "s", "metrics_address": "", **settings}
    process = Process("services.gateway", "SEEDVR2_GATEWAY", tmp_path, **values)
    await process.start(ready=False)
    assert await process.wait() == 2
    assert text in process.log
    assert len(process.log.splitlines()) == 1


async def test_what_is_measured_can_be_scraped(clip: Path, tmp_path: Path):
    async with rig(tmp_path, clip, settings={"metrics_address": "127.0.0.1:0"}) as it:
        await it.client.create_job(request(it.upload), "job")
        await finished(it.client, "job")
        async with httpx.AsyncClient() as web:
            text = (await web.get(f"http://{it.gateway.ready['metrics_address']}/metrics")).text
        for line in (
            "seedvr2_segments_stored_total 4.0",
            'seedvr2_requests_total{code="OK",method="CreateJob"} 1.0',
            f"seedvr2_upload_bytes_total {float(clip.stat().st_size)}",
            "seedvr2_join_duration_seconds_count 1.0",
        ):
            assert line in text
