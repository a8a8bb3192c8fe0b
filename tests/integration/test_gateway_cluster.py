"""Gateways and workers of a cluster: real processes, and the fake API server between them.

Workers listen on loopback, which a real cluster refuses in slices; so these tests always use the fake.
"""

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.clips import make
from tests.fakes.kubernetes.cluster import Cluster, pod
from tests.fakes.kubernetes.cluster import cluster as cluster_of
from tests.integration.gateway_calls import request, until
from tests.integration.processes import Process, echo_worker, gateway, running

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

FRAMES = 96
# Of the promise that the jobs of a dead gateway are taken up.
ADOPTED_S = 15


@dataclass(kw_only=True)
class Rig:
    """Gateways with one store, and workers behind slices; spans stop after their first segment while they are held."""

    directory: Path
    cluster: Cluster
    gateways: list[Process]
    clients: list[GatewayClient]
    workers: list[Process] = field(default_factory=list)
    upload: pb.Upload = field(default_factory=pb.Upload)

    @property
    def hold(self) -> Path:
        return self.directory / "hold"

    def spans(self) -> list[dict[str, Any]]:
        """What workers were given, in order."""
        log = self.directory / "spans"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []

    async def add(self, state: str = "110") -> int:
        """One more worker; its number."""
        number = len(self.workers)
        shared = {"hold_file": self.hold, "log_file": self.directory / "spans"}
        worker = echo_worker(self.directory / f"worker-{number}", **shared)
        self.workers.append(await worker.start())
        await self.say(number, state)
        return number

    async def say(self, number: int, state: str) -> None:
        """What the cluster says of a worker from now on; empty: nothing."""
        port = int(self.workers[number].address.rpartition(":")[2])
        endpoints = [pod("127.0.0.1", state, f"uid-{number}")] if state else []
        ports = [{"name": "grpc", "port": port}] if state else None
        await self.cluster.write_slice(f"worker-{number}", endpoints, ports=ports)

    async def seen(self, **states: int) -> None:
        """Wait until all gateways see so many workers in these states."""
        for client in self.clients:
            async with asyncio.timeout(30):
                while True:
                    found = [worker.state for worker in (await client.cluster_status()).workers]
                    if {state: found.count(state) for state in states} == states:
                        break
                    await asyncio.sleep(0.05)

    async def begun(self, job_id: str = "job") -> pb.Job:
        """A job of the first gateway that is held in the middle."""
        self.hold.touch()
        await self.clients[0].create_job(request(self.upload), job_id)
        job = await until(self.clients[0], job_id, lambda job: job.progress.segments_done >= 1)
        assert job.state == pb.JOB_STATE_RESTORING, job
        return job

    async def holding(self, workers: int) -> None:
        """Wait until so many workers are held, each in a span of its own."""
        async with asyncio.timeout(30):
            while len({span["pid"] for span in self.spans()}) < workers:
                await asyncio.sleep(0.05)

    async def state_of(self, job_id: str = "job") -> dict[str, Any]:
        """As the store has it."""
        found: dict[str, Any] = json.loads((self.directory / f"store/owners/local/jobs/{job_id}/state.json").read_text())
        return found

    async def taken_over(self, fence: int, within_s: float) -> None:
        """Wait until a later lease has written the job's state."""
        async with asyncio.timeout(within_s):
            while (await self.state_of())["fence"] <= fence:
                await asyncio.sleep(0.05)

    async def ended(self, client: GatewayClient, job_id: str = "job") -> pb.Job:
        """The job at its end, as a gateway that may not drive it sees it."""
        self.hold.unlink(missing_ok=True)
        async with asyncio.timeout(90):
            while (job := await client.get_job(job_id)).state not in _ENDED:
                await asyncio.sleep(0.1)
        assert job.state == pb.JOB_STATE_SUCCEEDED, job
        return job


_ENDED = (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED)


@asynccontextmanager
async def rig(directory: Path, clip: Path, *, gateways: int = 1, workers: int = 1, **settings: Any) -> AsyncIterator[Rig]:
    async with cluster_of(directory, loopback_endpoints=True) as cluster, contextlib.AsyncExitStack() as stack:
        shared = {
            "store_directory": directory / "store", "discovery": "kubernetes", "leases": "kubernetes",
            "kubernetes_config": cluster.kubeconfig, "kubernetes_selector": cluster.selector, "lease_s": 3,
            "lease_renew_s": 0.5, "span_seconds": 0.5, **settings,
        }  # fmt: skip
        processes = [gateway(directory / f"gateway-{number}", **shared) for number in range(gateways)]
        it = Rig(directory=directory, cluster=cluster, gateways=processes, clients=[])
        stack.push_async_callback(_kill, it.workers)
        for _ in range(workers):
            await it.add()
        await stack.enter_async_context(running(*processes))
        for process in processes:
            it.clients.append(await stack.enter_async_context(GatewayClient(process.address)))
        await it.seen(ready=workers)
        it.upload = await it.clients[0].upload_file(clip)
        yield it


async def _kill(workers: list[Process]) -> None:
    for worker in workers:
        await worker.kill()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.video(tmp_path_factory.mktemp("clip") / "a.mp4", frames=FRAMES, audio="aac")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the result of one worker, when nothing goes wrong."""
    async with rig(tmp_path_factory.mktemp("undisturbed"), clip) as it:
        await it.clients[0].create_job(request(it.upload), "job")
        return (await it.ended(it.clients[0])).result.sha256


@pytest.mark.parametrize("workers", [2, 4])
async def test_any_number_of_workers_gives_the_same_bytes(clip: Path, undisturbed: str, tmp_path: Path, workers: int):
    async with rig(tmp_path, clip, workers=workers) as it:
        await it.begun()
        await it.holding(workers)
        assert (await it.ended(it.clients[0])).result.sha256 == undisturbed


async def test_the_job_of_a_gateway_that_is_killed_is_finished_by_another(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip, gateways=2, workers=2) as it:
        await it.begun()
        fence = (await it.state_of())["fence"]
        await it.gateways[0].kill()
        await it.taken_over(fence, within_s=ADOPTED_S)
        job = await it.ended(it.clients[1])
        assert job.result.sha256 == undisturbed


async def test_a_gateway_that_is_told_to_stop_hands_its_jobs_over_at_once(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip, gateways=2, workers=2, lease_s=600) as it:
        await it.begun()
        fence = (await it.state_of())["fence"]
        assert await it.gateways[0].end(signal.SIGTERM) == 0
        await it.taken_over(fence, within_s=ADOPTED_S)
        assert (await it.ended(it.clients[1])).result.sha256 == undisturbed


async def test_a_gateway_that_was_stopped_for_too_long_writes_nothing_any_more(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip, gateways=2, workers=2) as it:
        await it.begun()
        fence = (await it.state_of())["fence"]
        paused = it.gateways[0].ready["pid"]
        os.kill(paused, signal.SIGSTOP)
        # The workers wait for the one that is stopped; another one comes for the one that goes on.
        await it.add()
        await it.taken_over(fence, within_s=30)
        job = await it.ended(it.clients[1])
        written = await it.state_of()
        os.kill(paused, signal.SIGCONT)
        async with asyncio.timeout(30):
            while "lets go of its jobs" not in it.gateways[0].log:
                await asyncio.sleep(0.05)
        assert (await it.ended(it.clients[0])).result.sha256 == job.result.sha256 == undisturbed
        assert await it.state_of() == written
        assert written["fence"] > fence


async def test_workers_are_replaced_while_a_job_runs(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip, workers=2) as it:
        await it.begun()
        await it.holding(2)
        for _ in range(2):
            await it.say(await it.add("000"), "110")
        await it.seen(ready=0, busy=4)
        # One is about to end, the other has left its Service; both have a span in hand.
        await it.say(0, "011")
        await it.say(1, "")
        await it.seen(draining=1, busy=2)
        job = await it.ended(it.clients[0])
        assert job.result.sha256 == undisturbed
        assert list(job.notes) == [], "no span was lost"
        given = [span["pid"] for span in it.spans()]
        assert [given.count(worker.ready["pid"]) for worker in it.workers[:2]] == [1, 1]


async def test_a_gateway_that_starts_while_a_pool_is_empty_takes_its_jobs(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        client = it.clients[0]
        await it.say(0, "")
        await it.seen(gone=1)
        await it.workers[0].kill()
        assert await it.gateways[0].end(signal.SIGTERM) == 0
        await it.gateways[0].restart()
        (model,) = (await client.models()).models
        assert (model.name, model.ready, list(model.pools)) == ("echo", False, ["echo"])
        planned = await client.plan_job(request(it.upload))
        await client.create_job(request(it.upload), "job")
        waiting = await until(client, "job", lambda job: job.progress.stage == "waiting")
        assert (planned.frames, waiting.state) == (FRAMES, pb.JOB_STATE_PLANNING)
        await it.add()
        assert (await it.ended(client)).result.sha256 == undisturbed


async def test_a_job_goes_on_after_the_api_server_was_away(clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, clip) as it:
        await it.begun()
        it.cluster.faked().go_away()
        async with asyncio.timeout(30):
            while "lets go of its jobs" not in it.gateways[0].log:
                await asyncio.sleep(0.05)
        assert len((await it.clients[0].cluster_status()).workers) == 1
        await it.clients[0].create_job(request(it.upload), "meanwhile")
        it.cluster.faked().come_back()
        for job_id in ("job", "meanwhile"):
            assert (await it.ended(it.clients[0], job_id)).result.sha256 == undisturbed
        assert [(await it.state_of(job_id))["fence"] for job_id in ("job", "meanwhile")] == [2, 1]
