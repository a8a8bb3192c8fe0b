"""A gateway with echo workers, and a switch that stops a job in its middle."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.integration.gateway_calls import finished, request, until
from tests.integration.processes import Process, echo_worker, gateway, running


@dataclass
class Rig:
    """A gateway, its workers, and a switch that stops every span after its first new segment."""

    directory: Path
    gateway: Process
    workers: list[Process]
    client: GatewayClient
    upload: pb.Upload = field(default_factory=pb.Upload)

    @property
    def hold(self) -> Path:
        return self.directory / "hold"

    @property
    def store(self) -> Path:
        return self.gateway._directory

    def spans(self) -> list[dict[str, Any]]:
        """What workers were given."""
        return [json.loads(line) for line in (self.directory / "spans").read_text().splitlines()]

    async def begun(self, job_id: str = "job") -> pb.Job:
        """A job that is held in the middle of its span, one segment stored."""
        self.hold.touch()
        await self.client.create_job(request(self.upload), job_id)
        job = await until(self.client, job_id, lambda job: job.progress.segments_done == 1)
        assert job.state == pb.JOB_STATE_RESTORING, job
        return job

    async def end(self, job_id: str = "job") -> pb.Job:
        """The job at its end, held no more."""
        self.hold.unlink(missing_ok=True)
        return await until(self.client, job_id, lambda job: False)


@asynccontextmanager
async def rig(directory: Path, clip: Path, workers: int = 1, settings: Any = None, **echo: Any) -> AsyncIterator[Rig]:
    """A rig with ``clip`` uploaded; ``settings`` are the gateway's, ``echo`` those of all workers."""
    shared = {"hold_file": directory / "hold", "log_file": directory / "spans", **echo}
    processes = [echo_worker(directory / f"worker-{number}", **shared) for number in range(workers)]
    async with running(*processes):
        process = gateway(directory / "gateway", *processes, fingerprint_wait_s=0.5, **(settings or {}))
        async with running(process), GatewayClient(process.address) as client:
            yield Rig(directory, process, processes, client, await client.upload_file(clip))


async def undisturbed_sha256(directory: Path, clip: Path) -> str:
    """The hash of a job's result when nothing goes wrong, with a store in a directory."""
    async with rig(directory, clip) as it:
        await it.client.create_job(request(it.upload), "job")
        return (await finished(it.client, "job")).result.sha256
