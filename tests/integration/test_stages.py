"""What goes wrong before and after the spans of a job, beside other gateways: a bucket that fails, a lease that is lost."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Coroutine, Iterable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.common.client import GatewayClient
from services.common.errors import UploadNotFound
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.gateway import keys
from tests.clips import make
from tests.fakes.kubernetes.cluster import Cluster, cluster
from tests.fault_proxy import Fault, FaultProxy
from tests.integration.gateway_calls import downloaded, finished, request, sha256, until
from tests.integration.identities import Identity, identity, token_file
from tests.integration.processes import Process, echo_worker, gateway, running
from tests.integration.rig import undisturbed_sha256
from tests.s3 import SeaweedFS, client_of, seaweedfs

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

ALICE, BOB = identity("alice"), identity("bob")
OUTAGE = {"tries": 2, "retry_s": 1.0}
"""Of the store's client: calls are given up soon, and jobs wait."""


@dataclass(kw_only=True)
class Rig:
    """Two gateways with one bucket, each with ways of its own to it and to the cluster."""

    directory: Path
    server: SeaweedFS
    processes: list[Process] = field(default_factory=list)
    stores: list[FaultProxy] = field(default_factory=list)
    clusters: list[FaultProxy] = field(default_factory=list)

    @property
    def hold(self) -> Path:
        """While it is there, spans stop after their first new segment."""
        return self.directory / "hold"

    @property
    def prefix(self) -> str:
        """Of all keys."""
        return f"{self.directory.name}/"

    @contextlib.asynccontextmanager
    async def clients(self, *who: Identity) -> AsyncIterator[list[GatewayClient]]:
        """One for each gateway."""
        async with contextlib.AsyncExitStack() as stack:
            found = [each.client(p.address) for each, p in zip(who, self.processes, strict=True)] if who else [
                GatewayClient(process.address) for process in self.processes
            ]  # fmt: skip
            yield [await stack.enter_async_context(client) for client in found]

    def objects(self) -> list[str]:
        """What is in the bucket, but what was used, and what pools served."""
        found = client_of(self.server.s3).list_objects(self.server.s3.bucket, self.prefix, recursive=True)
        names = (str(each.object_name).removeprefix(self.prefix) for each in found)
        return [name for name in names if not name.startswith((keys.USAGE, keys.POOLS))]


@asynccontextmanager
async def rig(directory: Path, server: SeaweedFS, **settings: object) -> AsyncIterator[Rig]:
    it = Rig(directory=directory, server=server)
    async with contextlib.AsyncExitStack() as stack:
        fake = await stack.enter_async_context(cluster(directory, loopback_endpoints=True))
        worker = echo_worker(directory / "worker", hold_file=it.hold)
        await stack.enter_async_context(running(worker))
        for number in range(2):
            it.processes.append(await _gateway(stack, it, number, fake, worker, settings))
        await stack.enter_async_context(running(*it.processes))
        yield it


async def _gateway(
    stack: contextlib.AsyncExitStack, it: Rig, number: int, fake: Cluster, worker: Process, settings: dict[str, object]
) -> Process:
    store = FaultProxy(it.server.s3.endpoint.removeprefix("http://"), http=True)
    api = FaultProxy(fake.faked().address.removeprefix("http://"))
    for ways, way in ((it.stores, store), (it.clusters, api)):
        ways.append(await stack.enter_async_context(way.listening()))
    config = json.loads(fake.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = f"http://{api.address}"
    kubeconfig = it.directory / f"kubeconfig-{number}"
    kubeconfig.write_text(json.dumps(config))
    s3 = it.server.s3.settings(it.directory / f"s3-{number}", endpoint=f"http://{store.address}", prefix=it.prefix, **OUTAGE)
    return gateway(
        it.directory / f"gateway-{number}", worker, s3=s3, leases="kubernetes", kubernetes_config=kubeconfig,
        lease_s=3, lease_renew_s=0.5, **settings,
    )  # fmt: skip


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    with seaweedfs(tmp_path_factory.mktemp("server") / "weed") as server:
        yield server


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.video(tmp_path_factory.mktemp("clip") / "a.mp4", frames=32, audio="aac")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the result with a store in a directory."""
    return await undisturbed_sha256(tmp_path_factory.mktemp("undisturbed"), clip)


@pytest.mark.parametrize(("state", "written"), [("PLANNING", "plan.json"), ("JOINING", "result.mp4"), ("JOINING", "report.json")])
async def test_a_job_waits_in_its_stage_while_the_store_fails_and_goes_on(
    server: SeaweedFS, clip: Path, undisturbed: str, tmp_path: Path, state: str, written: str
):
    async with rig(tmp_path, server) as it, it.clients() as (client, other):
        upload = await client.upload_file(clip)
        for way in it.stores:
            way.set(Fault(status=503, only=f"^(PUT|POST) .*/{written}"))
        await client.create_job(request(upload), "job")
        job = await until(client, "job", lambda job: job.progress.stage == "store")
        assert pb.JobState.Name(job.state) == f"JOB_STATE_{state}"
        for way in it.stores:
            way.set()
        assert (await finished(other, "job")).result.sha256 == undisturbed


async def test_an_upload_goes_on_through_an_outage_of_the_store(server: SeaweedFS, clip: Path, undisturbed: str, tmp_path: Path):
    async with rig(tmp_path, server) as it, it.clients() as (client, other):
        it.stores[0].set(Fault(status=503, only="^(PUT|POST) .*/uploads/"))
        uploading = asyncio.create_task(client.upload_file(clip, upload_id="u"))
        async with asyncio.timeout(30):
            while "is tried again" not in it.processes[0].log:
                await asyncio.sleep(0.05)
        it.stores[0].set()
        upload = await uploading
        assert upload.sha256 == sha256(clip)
        await other.create_job(request(upload), "job")
        assert (await finished(client, "job")).result.sha256 == undisturbed


async def test_who_loses_the_lease_of_a_job_while_it_joins_writes_nothing_any_more(
    server: SeaweedFS, clip: Path, undisturbed: str, tmp_path: Path
):
    async with rig(tmp_path, server) as it, it.clients() as (client, other):
        upload = await client.upload_file(clip)
        it.stores[0].set(Fault(status=503, only="^(PUT|POST) .*/result.mp4"))
        # Only the first one can drive it until then.
        it.clusters[1].set(Fault(refuse=True))
        await client.create_job(request(upload), "job")
        await until(client, "job", lambda job: job.state == pb.JOB_STATE_JOINING)
        it.clusters[1].set()
        it.clusters[0].set(Fault(refuse=True))
        job = await finished(other, "job")
        it.stores[0].set()
        it.clusters[0].set()
        assert "lets go of its jobs" in it.processes[0].log
        assert (await finished(client, "job")).result.sha256 == job.result.sha256 == undisturbed
        for number, each in enumerate((client, other)):
            assert sha256(await downloaded(each, "job", tmp_path / f"{number}.mp4")) == undisturbed
            assert (await each.get_job("job")).state == pb.JOB_STATE_SUCCEEDED


async def first_of(waiting: Iterable[Coroutine[Any, Any, object]]) -> None:
    """Until one of them is done: which job the only worker takes up first, chance decides."""
    tasks = [asyncio.create_task(each) for each in waiting]
    _, others = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    for other in others:
        other.cancel()
    await asyncio.wait(tasks)


async def test_equal_ids_of_two_owners_at_two_gateways_are_apart_when_one_of_these_is_killed(
    server: SeaweedFS, clip: Path, undisturbed: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("SEEDVR2_IDENTITY_TOKEN_FILE", str(token_file(tmp_path / "tokens", ALICE, BOB)))
    short = make.video(tmp_path / "b.mp4", frames=16)
    async with rig(tmp_path, server) as it, it.clients(ALICE, BOB) as (alice, bob), BOB.client(it.processes[0].address) as far:
        await asyncio.gather(alice.upload_file(clip, upload_id="u"), bob.upload_file(short, upload_id="u"))
        it.hold.touch()
        await asyncio.gather(*(each.create_job(request("u"), "job") for each in (alice, bob)))
        await first_of(until(each, "job", lambda job: job.progress.segments_done >= 1) for each in (alice, bob))
        await it.processes[1].kill()
        it.hold.unlink()
        job, other = await asyncio.gather(finished(alice, "job"), finished(far, "job"))
        assert (job.result.sha256, job.result.frames, other.result.frames) == (undisturbed, 32, 16)
        await alice.delete_job("job")
        await alice.delete_upload("u")
        assert sha256(await downloaded(far, "job", tmp_path / "result.mp4")) == other.result.sha256


async def test_a_job_of_an_upload_that_expires_in_that_moment_has_it_or_says_that_it_is_gone(
    server: SeaweedFS, clip: Path, undisturbed: str, tmp_path: Path
):
    async with rig(tmp_path, server, sweep_s=0.2, keep_uploads_s=2.0) as it, it.clients() as clients:
        for round_ in range(6):
            name, client = f"n-{round_}", clients[round_ % 2]
            await client.upload_file(clip, upload_id=name)
            # Some are created before it expires, some after, and some meanwhile.
            await asyncio.sleep(1.5 + 0.25 * round_)
            try:
                await client.create_job(request(name), name)
            except UploadNotFound:
                continue
            job = await until(client, name, lambda job: False)
            if job.state == pb.JOB_STATE_FAILED:
                assert job.failure.reason == "UploadNotFound", job
            else:
                assert job.result.sha256 == undisturbed, job
                assert (await client.get_upload(name)).complete, "its job may be retried"
            await client.delete_job(name)
        async with asyncio.timeout(60):
            while left := it.objects():
                assert all("/n-" in name or name.startswith(("active/", ".check/")) for name in left), left
                await asyncio.sleep(0.2)
