"""Jobs whose store is a bucket of a real S3 server, and what dies in their middle."""

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.common.client import GatewayClient
from services.common.errors import ServiceError, StoreFull
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.gateway import keys
from services.gateway.store.s3.store import S3Store
from tests.clips import make
from tests.fault_proxy import Fault, FaultProxy
from tests.integration.gateway_calls import downloaded, read_all, request
from tests.integration.processes import gateway, running
from tests.integration.rig import rig, undisturbed_sha256
from tests.s3 import SeaweedFS, seaweedfs

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

MIB = 1 << 20


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedFS]:
    """A server of one's own: it is killed here."""
    with seaweedfs(tmp_path_factory.mktemp("server") / "weed") as server:
        yield server


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.video(tmp_path_factory.mktemp("clip") / "a.mp4", frames=32, audio="aac")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def undisturbed(clip: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The hash of the result with a store in a directory."""
    return await undisturbed_sha256(tmp_path_factory.mktemp("undisturbed"), clip)


async def test_a_job_gives_the_same_bytes_as_in_a_directory_and_leaves_nothing(
    server: SeaweedFS, clip: Path, undisturbed: str, tmp_path: Path
):
    s3 = server.s3.settings(tmp_path / "s3", lifecycle=True)
    async with rig(tmp_path, clip, settings={"s3": s3}) as it:
        await it.begun()
        assert await read_all(await it.client.read_result("job", segment=0))
        assert (await it.client.frame("job", pb.FRAME_OF_RESULT, 7)).startswith(b"\x89PNG")
        job = await it.end()
        assert job.result.sha256 == undisturbed
        result = await downloaded(it.client, "job", tmp_path / "result.mp4")
        assert result.stat().st_size == job.result.size_bytes
        await it.client.delete_job("job")
        await it.client.delete_upload(it.upload.upload_id)
        with contextlib.closing(S3Store(s3)) as store:
            # What was used is kept, and what pools served.
            assert [key for key in await store.objects.keys("") if not key.startswith((keys.USAGE, keys.POOLS))] == []
        assert "remove leftovers after 7 days" in it.gateway.log
        assert server.s3.secret_key not in it.gateway.log


async def test_a_gateway_that_is_killed_in_the_middle_of_a_job_goes_on(
    server: SeaweedFS, clip: Path, undisturbed: str, tmp_path: Path
):
    async with rig(tmp_path, clip, settings={"s3": server.s3.settings(tmp_path / "s3")}) as it:
        await it.begun()
        await it.gateway.kill()
        it.hold.unlink()
        await it.gateway.restart()
        assert (await it.end()).result.sha256 == undisturbed
        assert [span["stored"] for span in it.spans()] == [[], [0]]


async def test_a_server_that_is_killed_in_the_middle_of_a_job_costs_only_time(
    server: SeaweedFS, clip: Path, undisturbed: str, tmp_path: Path
):
    async with rig(tmp_path, clip, settings={"s3": server.s3.settings(tmp_path / "s3", tries=20, retry_s=60)}) as it:
        await it.begun()
        server.kill()
        it.hold.unlink()
        # The worker's next segment comes while there is nowhere to store it.
        async with asyncio.timeout(30):
            while "is tried again" not in it.gateway.log:
                await asyncio.sleep(0.05)
        await asyncio.to_thread(server.start)
        assert (await it.end()).result.sha256 == undisturbed


async def test_a_job_waits_through_an_outage_that_is_longer_than_any_retry_and_says_so(
    server: SeaweedFS, clip: Path, undisturbed: str, tmp_path: Path
):
    async with rig(tmp_path, clip, settings={"s3": server.s3.settings(tmp_path / "s3", tries=2, retry_s=1)}) as it:
        await it.begun()
        server.kill()
        it.hold.unlink()
        async with asyncio.timeout(60):
            while (job := await it.client.get_job("job")).progress.stage != "store":
                await asyncio.sleep(0.1)
        assert job.state == pb.JOB_STATE_RESTORING
        # Not only what the worker had in hand was given up: the job was begun again, in vain.
        async with asyncio.timeout(60):
            while it.gateway.log.count("a job waits for the store") < 3:
                await asyncio.sleep(0.1)
        await asyncio.to_thread(server.start)
        job = await it.end()
        assert job.result.sha256 == undisturbed


async def test_a_gateway_that_starts_while_the_store_is_full_answers_and_goes_on_once_there_is_room(
    server: SeaweedFS, clip: Path, undisturbed: str, tmp_path: Path
):
    proxy = FaultProxy(server.s3.endpoint.removeprefix("http://"), http=True)
    async with proxy.listening():
        s3 = server.s3.settings(tmp_path / "s3", endpoint=f"http://{proxy.address}", lifecycle=True)
        async with rig(tmp_path, clip, settings={"s3": s3}) as it:
            await it.begun()
            await it.gateway.kill()
            it.hold.unlink()
            proxy.set(Fault(status=507, only="^(PUT|POST) "))
            await it.gateway.restart()
            assert (await it.client.get_job("job")).state == pb.JOB_STATE_RESTORING
            async with asyncio.timeout(60):
                while "a job can't be taken up yet: The object store is full" not in it.gateway.log:
                    await asyncio.sleep(0.1)
            proxy.set()
            assert (await it.end()).result.sha256 == undisturbed
            assert "Traceback" not in it.gateway.log


async def test_deleting_a_job_makes_room_in_a_bucket_that_is_full(server: SeaweedFS, clip: Path, tmp_path: Path):
    proxy = FaultProxy(server.s3.endpoint.removeprefix("http://"), http=True)
    async with proxy.listening():
        s3 = server.s3.settings(tmp_path / "s3", endpoint=f"http://{proxy.address}")
        async with rig(tmp_path, clip, settings={"s3": s3}) as it:
            for name in ("first", "second"):
                await it.client.create_job(request(it.upload), name)
                assert (await it.end(name)).state == pb.JOB_STATE_SUCCEEDED
            proxy.set(Fault(status=507, only="^PUT .*/state.json", times=1))
            await it.client.delete_job("first")
            assert not [r for r in proxy.requests if r.line.startswith("DELETE ") and "/second/" in r.line]
            # No room comes of it, whoever else has used it up.
            proxy.set(Fault(status=507, only="^PUT "))
            with pytest.raises(StoreFull, match="delete jobs"):
                await it.client.delete_job("second")
            proxy.set()
            await it.client.delete_job("second")
            await it.client.delete_upload(it.upload.upload_id)
            with contextlib.closing(S3Store(s3)) as store:
                assert await store.objects.keys("owners/") == []


async def test_a_gateway_that_is_killed_in_the_middle_of_an_upload_kept_what_it_acknowledged(server: SeaweedFS, tmp_path: Path):
    data = random.Random(5).randbytes(23 * MIB)
    (tmp_path / "file.mp4").write_bytes(data)
    process = gateway(tmp_path / "gateway", "127.0.0.1:1", s3=server.s3.settings(tmp_path / "s3"))
    async with running(process), GatewayClient(process.address) as client:
        await client.create_upload("file.mp4", len(data), "u")
        first = await client.write_upload("u", 0, pieces_of(data[: 7 * MIB]), finish=False)
        assert first.received_bytes == 7 * MIB
        halfway, killed = asyncio.Event(), asyncio.Event()
        rest = pieces_of(data[7 * MIB :], halfway, killed)
        second = asyncio.ensure_future(client.write_upload("u", 7 * MIB, rest, finish=True))
        await halfway.wait()
        await process.kill()
        killed.set()
        with pytest.raises(ServiceError):
            await second
        await process.restart()
        kept = (await client.get_upload("u")).received_bytes
        assert 7 * MIB <= kept < len(data)
        upload = await client.upload_file(tmp_path / "file.mp4", upload_id="u")
        assert upload.complete
        with contextlib.closing(S3Store(server.s3.settings(tmp_path / "s3"))) as store:
            key = next(key for key in await store.keys("owners/") if key.endswith("/u/data"))
            assert b"".join([piece async for piece in store.read(key)]) == data


async def pieces_of(
    data: bytes, halfway: asyncio.Event | None = None, go_on: asyncio.Event | None = None
) -> AsyncIterator[bytes]:
    """The data piece by piece; in its middle it is told, and waits."""
    for offset in range(0, len(data), MIB):
        if halfway and go_on and offset >= len(data) // 2:
            halfway.set()
            await go_on.wait()
        yield data[offset : offset + MIB]


async def test_nothing_acknowledged_is_lost_when_the_server_is_killed_again_and_again(server: SeaweedFS, tmp_path: Path):
    store = S3Store(server.s3.settings(tmp_path, tries=20, retry_s=60))
    records: dict[str, bytes] = {}
    states: dict[str, tuple[bytes, str]] = {}
    settled: dict[str, int] = {}
    done = asyncio.Event()

    async def write_records(writer: int) -> None:
        number = 0
        while not done.is_set():
            key, data = f"r/{writer}-{number}", random.Random(number).randbytes(1 + number % 3000)
            await store.put(key, data, if_absent=True)
            records[key] = data
            number += 1

    async def change_state(key: str) -> None:
        tag, number = await store.put(key, b"0", if_absent=True), 0
        while not done.is_set():
            number += 1
            tag = await store.put(key, str(number).encode(), if_match=tag)
            states[key] = str(number).encode(), tag

    async def upload(key: str) -> None:
        offset = 0
        while not done.is_set():
            for _ in range(3):
                offset = await store.append(key, offset, bytes([offset // MIB]) * MIB)
            await store.settle(key)
            settled[key] = offset

    async with asyncio.TaskGroup() as group:
        writers = [write_records(0), write_records(1), change_state("s/1"), upload("u/1")]
        tasks = [group.create_task(writer) for writer in writers]
        for _ in range(3):
            before = len(records), len(settled), states.get("s/1")
            while len(records) < before[0] + 20 or states.get("s/1") == before[2] or not settled:
                await asyncio.sleep(0.05)
                assert not any(task.done() for task in tasks)
            await asyncio.to_thread(server.kill)
            await asyncio.to_thread(server.start)
        done.set()
    store.close()
    with contextlib.closing(S3Store(server.s3.settings(tmp_path))) as again:
        for key, data in records.items():
            assert (await again.get(key))[0] == data
        assert await again.get("s/1") == states["s/1"]
        assert await again.appended("u/1") == settled["u/1"]
        await again.finish("u/1")
        whole = b"".join([piece async for piece in again.read("u/1")])
        assert all(whole[n * MIB : (n + 1) * MIB] == bytes([n]) * MIB for n in range(settled["u/1"] // MIB))


@pytest.mark.parametrize(
    ("change", "code", "text"),
    [
        ({"secret_key_file": "wrong"}, 2, "refuses the gateway (AccessDenied)"),
        ({"bucket": "seedvr2-nowhere"}, 2, "SEEDVR2_S3_CREATE_BUCKET=true"),
        ({"cache_bytes": 1000}, 2, "SEEDVR2_S3_CACHE_BYTES is 1000"),
        ({"endpoint": "http://127.0.0.1:1", "tries": 2}, 1, "doesn't answer as it should"),
    ],
    ids=["key", "bucket", "cache", "away"],
)
async def test_a_store_that_can_not_be_used_ends_the_gateway_in_one_line(
    server: SeaweedFS, tmp_path: Path, change: dict[str, Any], code: int, text: str
):
    (tmp_path / "wrong").write_text("wrong")
    if "secret_key_file" in change:
        change = {"secret_key_file": str(tmp_path / "wrong")}
    process = gateway(tmp_path / "gateway", "127.0.0.1:1", s3=server.s3.settings(tmp_path / "s3", **change))
    await process.start(ready=False)
    assert await process.wait() == code
    said = [line for line in process.log.splitlines() if not line.startswith("{")]
    assert len(said) == 1
    assert text in said[0]
