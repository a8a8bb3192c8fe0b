"""Peak memory of every process while a 10 s and a 60 s clip go through all services: equal, whatever the length."""

import asyncio
import tempfile
from collections import defaultdict
from pathlib import Path

import psutil

from bench.table import print_table
from services.cli.local import LocalStack, StackOptions
from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.clips.noisy import noisy_clip

WIDTH, HEIGHT, RATE = 160, 96, 25
_PERIOD_S = 0.1


async def main() -> None:
    """Print the table and the growth from the short to the long clip."""
    peaks: dict[int, dict[str, int]] = {}
    for seconds in (10, 60):
        with tempfile.TemporaryDirectory() as directory:
            peaks[seconds] = await _peaks_of(seconds, Path(directory))
    rows = []
    for name, short in sorted(peaks[10].items()):
        long = peaks[60][name]
        rows.append((name, f"{short / 2**20:.0f}", f"{long / 2**20:.0f}", f"{100 * (long / short - 1):+.1f} %"))
    print_table(f"Peak resident memory, {WIDTH}x{HEIGHT}, MiB", ("process", "10 s clip", "60 s clip", "growth"), rows)


async def _peaks_of(seconds: int, directory: Path) -> dict[str, int]:
    clip = noisy_clip(directory / "clip.mp4", width=WIDTH, height=HEIGHT, frames=seconds * RATE)
    options = StackOptions(data_directory=directory / "data")
    async with LocalStack(options, lambda _: None) as stack, GatewayClient(stack.gateway_address) as client:
        upload = await client.upload_file(clip)
        job = await client.create_job(pb.JobRequest(source=pb.Source(upload_id=upload.upload_id)))
        return await _watch(client, job.job_id)


async def _watch(client: GatewayClient, job_id: str) -> dict[str, int]:
    peaks: dict[str, int] = defaultdict(int)
    done = asyncio.create_task(_ended(client, job_id))
    while not done.done():
        for name, memory_bytes in resident().items():
            peaks[name] = max(peaks[name], memory_bytes)
        await asyncio.sleep(_PERIOD_S)
    job = done.result()
    if job.state != pb.JOB_STATE_SUCCEEDED:
        raise SystemExit(f"the job failed: {job.failure.message}")
    return peaks


async def _ended(client: GatewayClient, job_id: str) -> pb.Job:
    async for job in client.watch_job(job_id):
        last = job
    return last


def resident() -> dict[str, int]:
    """Bytes of resident memory of every service process below this one, by module; the largest where there are several."""
    found: dict[str, int] = {}
    for process in psutil.Process().children(recursive=True):
        try:
            name = next((a.removeprefix("services.") for a in process.cmdline() if a.startswith("services.")), "")
            if name:
                found[name] = max(found.get(name, 0), process.memory_info().rss)
        except psutil.NoSuchProcess:
            continue
    return found
