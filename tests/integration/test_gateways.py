"""Two gateways of their own processes on one store: any answers for any job, and either takes up what the other leaves."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from services.common.client import GatewayClient
from services.common.errors import JobNotFound
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.clips import make
from tests.integration.gateway_calls import downloaded, finished, objects, request, sha256, until
from tests.integration.processes import Process, echo_worker, gateway, running

pytestmark = pytest.mark.integration

FRAMES = 32
# As they are by default, but for the worker, of which the test shouldn't wait.
SETTINGS = {"adopt_s": 5.0, "share_s": 2.0, "fresh_s": 1.0}


@dataclass
class Rig:
    """Two gateways and a worker that stops every span after its first new segment while ``hold`` exists."""

    directory: Path
    processes: tuple[Process, Process]
    worker: Process
    first: GatewayClient
    second: GatewayClient

    @property
    def hold(self) -> Path:
        return self.directory / "hold"

    @property
    def spans(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.directory / "spans").read_text().splitlines()]

    async def begun(self, upload: pb.Upload) -> None:
        """A job that the first gateway drives, held in the middle."""
        self.hold.touch()
        await self.first.create_job(request(upload), "job")
        await until(self.first, "job", lambda job: job.progress.segments_done == 1)


@asynccontextmanager
async def rig(directory: Path) -> AsyncIterator[Rig]:
    worker = echo_worker(directory / "worker", hold_file=directory / "hold", log_file=directory / "spans")
    async with running(worker):
        shared = {"store_directory": directory / "gateway/store", **SETTINGS}
        processes = tuple(gateway(directory / name, worker, **shared) for name in ("gateway", "second"))
        first, second = processes
        async with running(first, second), GatewayClient(first.address) as one, GatewayClient(second.address) as two:
            yield Rig(directory, (first, second), worker, one, two)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.video(tmp_path_factory.mktemp("clip") / "a.mp4", frames=FRAMES, audio="aac")


async def test_what_is_created_at_one_gateway_is_watched_listed_and_had_at_the_other(clip: Path, tmp_path: Path):
    async with rig(tmp_path) as it:
        upload = await it.first.upload_file(clip)
        await it.begun(upload)
        seen = await until(it.second, "job", lambda job: job.progress.segments_done == 1)
        assert (seen.state, seen.progress.frames_done) == (pb.JOB_STATE_RESTORING, 8)
        assert [job.job_id for job in (await it.second.list_jobs()).jobs] == ["job"]
        assert (await it.second.create_job(request(upload), "job")).created_at == seen.created_at
        it.hold.unlink()
        job = await finished(it.second, "job")
        paths = [await downloaded(client, "job", tmp_path / name) for client, name in ((it.first, "1"), (it.second, "2"))]
        assert {sha256(path) for path in paths} == {job.result.sha256}
        await it.second.delete_job("job")
        # What is known counts for a second.
        with pytest.raises(JobNotFound):
            while await it.first.get_job("job"):
                await asyncio.sleep(0.1)
        assert not (await it.first.list_jobs()).jobs
        await it.second.delete_upload(upload.upload_id)
        assert objects(it.processes[0]._directory) == []


async def test_a_gateway_that_is_killed_leaves_its_jobs_to_the_other_and_the_result_is_the_same(clip: Path, tmp_path: Path):
    async with rig(tmp_path) as it:
        upload = await it.first.upload_file(clip)
        await it.first.create_job(request(upload), "undisturbed")
        undisturbed = await finished(it.first, "undisturbed")
        await it.first.delete_job("undisturbed")
        await it.begun(upload)
        await it.processes[0].kill()
        it.hold.unlink()
        job = await finished(it.second, "job")
        assert job.result.sha256 == undisturbed.result.sha256
        assert [span["stored"] for span in it.spans[1:]] == [[], [0]]
        # What the dead one has told is not taken for news.
        assert job.progress.frames_done == FRAMES


async def test_a_job_is_cancelled_at_another_gateway_than_its_drivers_and_the_worker_gets_free(clip: Path, tmp_path: Path):
    async with rig(tmp_path) as it:
        upload = await it.first.upload_file(clip)
        await it.begun(upload)
        assert (await it.second.cancel_job("job")).state == pb.JOB_STATE_CANCELLED
        # The worker has one slot, and the job's span holds it.
        await it.second.create_job(request(upload, frames=(0, 16)), "next")
        await until(it.second, "next", lambda job: job.progress.segments_done == 1)
        await it.second.delete_job("job")
        it.hold.unlink()
        await finished(it.first, "next")
