"""A worker whose rank runs out of memory for real: the kernel gives its process no more than a limit."""

import resource
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.clips import make
from tests.integration.gateway_calls import finished, request, until
from tests.integration.inference_worker import Worker, connected
from tests.integration.processes import gateway, running

pytestmark = pytest.mark.integration

FRAMES, SIZE, SCALE = 5, (160, 96), 2.0
TOO_FEW_BYTES = 50 << 20
"""Beyond what the rank has when it waits."""


@pytest.fixture
def worker(tmp_path: Path) -> Iterator[Worker]:
    found = Worker(tmp_path / "worker")
    yield found
    found.end()


def limit(rank: psutil.Process, more_bytes: int | None) -> None:
    """Let a process have so much address space beyond what it has; None: as much as it likes."""
    soft = resource.RLIM_INFINITY if more_bytes is None else rank.memory_info().vms + more_bytes
    rank.rlimit(psutil.RLIMIT_AS, (soft, resource.RLIM_INFINITY))


@asynccontextmanager
async def a_job_that_lacks_memory(
    worker: Worker, directory: Path, job_id: str
) -> AsyncIterator[tuple[GatewayClient, psutil.Process]]:
    """A job whose one attempt begins under the limit; a client of its gateway, and the rank."""
    async with connected(worker) as calls:
        await calls.until_state("ready")
    rank = worker.rank
    process = gateway(directory / "gateway", worker.address, span_attempts=1)
    async with running(process), GatewayClient(process.address) as client:
        upload = await client.upload_file(make.video(directory / "a.mp4", frames=FRAMES, size=SIZE))
        limit(rank, TOO_FEW_BYTES)
        await client.create_job(request(upload, scale=SCALE), job_id)
        yield client, rank


async def test_a_span_that_runs_out_of_memory_is_tried_again_with_less_and_the_process_lives(worker: Worker, tmp_path: Path):
    async with a_job_that_lacks_memory(worker, tmp_path, "tight") as (client, rank):
        job = await until(client, "tight", lambda job: bool(job.notes))
        assert "Sent again, the span is restored with less memory." in job.notes[0]
        # How much less a process takes isn't exact to the megabyte, so whatever else it needs is there now.
        limit(rank, None)
        job = await finished(client, "tight")
        assert job.result.frames == FRAMES
        assert worker.metric('seedvr2_out_of_memory_total{outcome="leaner"}') == 1
        assert worker.metric("seedvr2_rank_starts_total") == 1
        assert worker.rank.pid == rank.pid


async def test_a_job_that_cannot_be_restored_with_less_fails_and_the_next_one_works(worker: Worker, tmp_path: Path):
    async with a_job_that_lacks_memory(worker, tmp_path, "hopeless") as (client, rank):
        job = await until(client, "hopeless", lambda job: False)
        assert (job.state, job.failure.reason) == (pb.JOB_STATE_FAILED, "GpuOutOfMemory")
        assert "needs more memory" in job.failure.message
        assert worker.metric('seedvr2_out_of_memory_total{outcome="failed"}') == 1
        limit(rank, None)
        await client.retry_job("hopeless")
        await finished(client, "hopeless")
        assert worker.rank.pid == rank.pid
