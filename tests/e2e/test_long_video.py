"""A long video doesn't fill anybody's memory, and cancelling it frees the worker."""

import asyncio
import time
from pathlib import Path

import pytest

from bench.memory import resident
from services.cli.local import LocalStack, StackOptions
from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.clips.noisy import moving_picture, write_clip

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(280)]
MINUTES, RATE = 5, 25
WATCHED_FRAMES = 128


async def _watch(client: GatewayClient, job_id: str) -> list[dict[str, int]]:
    """Memory of each process, at each change of the job until enough frames are restored."""
    samples = []
    async with asyncio.timeout(200):
        async for job in client.watch_job(job_id):
            samples.append(resident())
            assert job.state != pb.JOB_STATE_FAILED, job.failure
            if job.progress.frames_done >= WATCHED_FRAMES:
                break
    return samples


async def _free_again(client: GatewayClient) -> None:
    async with asyncio.timeout(20):
        while not any(worker.state == "ready" and worker.free_slots for worker in (await client.cluster_status()).workers):
            await asyncio.sleep(0.1)


async def test_memory_stays_bounded_over_five_minutes_that_are_cancelled(tmp_path: Path):
    pictures = moving_picture(RATE, 160, 96)
    clip = write_clip(
        tmp_path / "long.mp4", (pictures[i % RATE] for i in range(MINUTES * 60 * RATE)), rate=RATE, preset="ultrafast"
    )
    options = StackOptions(data_directory=tmp_path / "data")
    async with LocalStack(options, lambda _: None) as stack, GatewayClient(stack.gateway_address) as client:
        upload = await client.upload_file(clip)
        job = await client.create_job(pb.JobRequest(source=pb.Source(upload_id=upload.upload_id)))
        samples = await _watch(client, job.job_id)
        cancelled_at = time.monotonic()
        assert (await client.cancel_job(job.job_id)).state == pb.JOB_STATE_CANCELLED
        await _free_again(client)
        assert time.monotonic() - cancelled_at < 10
    warm, rest = samples[: len(samples) // 2], samples[len(samples) // 2 :]
    for name in set().union(*rest):
        before, after = (max(sample.get(name, 0) for sample in part) for part in (warm, rest))
        assert after <= before * 1.1 + (8 << 20), f"{name} grew from {before >> 20} to {after >> 20} MiB"
