"""Whatever is killed in the middle of a job, the result has the bytes of an undisturbed run."""

import asyncio
import hashlib
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import psutil
import pytest

from services.cli.local import LocalStack, StackOptions
from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.clips.noisy import noisy_clip

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]
VICTIMS = {"rank": "services.inference.gpu.rank", "inference": "services.inference", "gateway": "services.gateway"}


FRAMES = 48


@pytest.fixture(scope="module", autouse=True)
def _fixed_threads():
    with pytest.MonkeyPatch.context() as patch:
        # Sums are rounded in another order with another number of threads.
        patch.setenv("SEEDVR2_INFERENCE_TORCH_THREADS", "1")
        patch.setenv("SEEDVR2_INFERENCE_ENCODER_THREADS", "1")
        patch.setenv("SEEDVR2_GATEWAY_SEGMENT_FRAMES", "8")
        yield


@asynccontextmanager
async def _stack(directory: Path) -> AsyncIterator[GatewayClient]:
    options = StackOptions(data_directory=directory)
    async with LocalStack(options, lambda _: None) as stack, GatewayClient(stack.gateway_address) as client:
        yield client


async def _create(client: GatewayClient, clip: Path) -> pb.Job:
    upload = await client.upload_file(clip)
    return await client.create_job(pb.JobRequest(source=pb.Source(upload_id=upload.upload_id), target=pb.Target(scale=2)))


async def _watch(client: GatewayClient, job_id: str, segments: int = 1 << 30) -> pb.Job:
    """The job when it has ended, or has that many segments."""
    async with asyncio.timeout(150):
        async for job in client.watch_job(job_id):
            if job.progress.segments_done >= segments:
                break
    return job


async def _finish(client: GatewayClient, job_id: str, path: Path) -> tuple[pb.Job, str]:
    job = await _watch(client, job_id)
    assert job.state == pb.JOB_STATE_SUCCEEDED, job.failure
    await client.download_result(job_id, path)
    return job, hashlib.sha256(path.read_bytes()).hexdigest()


def _kill(module: str, service: str = "") -> None:
    """Kill the one process of a module, or of these the one that calls itself ``service``."""
    victims = [p for p in psutil.Process().children(recursive=True) if module in p.cmdline()]
    victims = [p for p in victims if not service or p.environ()["SEEDVR2_SERVICE"] == service]
    assert len(victims) == 1, [p.cmdline() for p in victims]
    os.kill(victims[0].pid, signal.SIGKILL)


async def _undisturbed(clip: Path, directory: Path) -> str:
    async with _stack(directory) as client:
        job, expected = await _finish(client, (await _create(client, clip)).job_id, directory / "expected.mp4")
    assert job.result.frames == FRAMES
    return expected


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return noisy_clip(tmp_path_factory.mktemp("clip") / "clip.mp4", width=96, height=64, frames=FRAMES)


@pytest.fixture(scope="module")
def expected(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """Hash of the result that nothing disturbed."""
    return asyncio.run(_undisturbed(clip, tmp_path_factory.mktemp("undisturbed")))


@pytest.mark.parametrize("victim", VICTIMS)
async def test_a_job_survives_whatever_is_killed_with_the_same_bytes(victim: str, clip: Path, expected: str, tmp_path: Path):
    async with _stack(tmp_path / "data") as client:
        job = await _watch(client, (await _create(client, clip)).job_id, segments=1)
        assert job.state == pb.JOB_STATE_RESTORING, f"too late: {job.progress}"
        _kill(VICTIMS[victim])
        job, got = await _finish(client, job.job_id, tmp_path / "result.mp4")
    assert got == expected
    assert victim == "gateway" or job.notes, "the job doesn't say that a worker was lost"


async def test_a_job_survives_a_killed_rank_of_two_that_share_its_spans(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SEEDVR2_INFERENCE_RANKS", "2")
    expected = await _undisturbed(clip, tmp_path / "undisturbed")
    async with _stack(tmp_path / "data") as client:
        job = await _watch(client, (await _create(client, clip)).job_id, segments=1)
        assert job.state == pb.JOB_STATE_RESTORING, f"too late: {job.progress}"
        _kill(VICTIMS["rank"], "inference-rank-1")
        job, got = await _finish(client, job.job_id, tmp_path / "result.mp4")
    assert got == expected
    assert job.notes, "the job doesn't say that a worker was lost"
