"""The conversation with a worker, over a real socket with a small real one."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import (
    ChunkOutOfOrder,
    DeadlinePassed,
    FingerprintChanged,
    GpuOutOfMemory,
    InvalidVideo,
    ServiceError,
    WorkerBroken,
    WorkerUnavailable,
)
from services.common.media import Packet
from services.common.pb.seedvr2.v1 import worker_pb2 as pb
from services.common.pb.seedvr2.v1 import worker_pb2_grpc
from services.common.plan import Segment
from services.common.rpc.server import Server
from services.common.rpc.tls import ChannelTls, ServerTls
from services.gateway.fleet.endpoints import Endpoint, Listed
from services.gateway.fleet.workers import Fleet
from tests.certificates import Authority
from tests.integration.echo_worker import EchoSettings, EchoWorker
from tests.unit.gateway.fleet.serving import TASK, packets, restore


@asynccontextmanager
async def connected(
    servicer: worker_pb2_grpc.WorkerServicer, stall_s: float = 10, *, tls: ServerTls | None = None, by: ChannelTls | None = None
) -> AsyncIterator[tuple[Fleet, str]]:
    server = Server("127.0.0.1:0", tls=tls)
    server.add("seedvr2.v1.Worker", lambda s: worker_pb2_grpc.add_WorkerServicer_to_server(servicer, s))
    address = f"127.0.0.1:{await server.start()}"
    workers = Fleet([Listed([Endpoint(address=address, pool="listed")])], poll_s=0.05, stall_s=stall_s, tls=by)
    try:
        await workers.start()
        yield workers, address
    finally:
        await workers.aclose()
        await server.stop(0)


async def test_a_span_comes_back_as_its_segments():
    async with connected(EchoWorker(EchoSettings())) as (workers, address):
        segments, stages = await restore(workers, address)
    assert segments == list(TASK.segments)
    assert stages[0] == "decode"


async def test_a_worker_says_how_it_is():
    async with connected(EchoWorker(EchoSettings())) as (workers, _):
        view = workers.views()[0]
        assert (view.state, view.pool) == ("ready", "echo")


async def test_a_worker_that_is_suspected_is_lost_until_it_answers():
    async with connected(EchoWorker(EchoSettings())) as (workers, address):
        seen: list[str] = []
        back = asyncio.Event()

        def changed() -> None:
            seen.append(workers.views()[0].state)
            if seen[-1] == "ready":
                back.set()

        workers.on_change(changed)
        workers.suspect(address)
        await asyncio.wait_for(back.wait(), 5)
        assert seen == ["lost", "ready"]


class Restarted(EchoWorker):
    """Says what it serves the first time it is asked; then it is starting, and can't say."""

    _asked = 0

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:
        self._asked += 1
        return await super().Status(request, context) if self._asked == 1 else pb.StatusResponse(state="starting")


async def test_a_worker_that_is_started_again_is_still_known_for_what_it_served():
    async with connected(Restarted(EchoSettings())) as (workers, _):
        async with asyncio.timeout(5):
            while workers.views()[0].state != "starting":
                await asyncio.sleep(0.01)
        status = workers.views()[0].status
        assert status is not None
        assert ([model.name for model in status.models], status.fingerprint) == (["echo"], "echo-1")


async def test_a_worker_that_is_not_there_cannot_be_reached():
    workers = Fleet([Listed([Endpoint(address="127.0.0.1:1", pool="listed")])], poll_s=60, stall_s=1)
    await workers.start()
    try:
        assert (workers.views()[0].state, workers.views()[0].pool) == ("lost", "listed")
        with pytest.raises(WorkerUnavailable, match="no connection"):
            await restore(workers, "127.0.0.1:1")
    finally:
        await workers.aclose()


@pytest.mark.parametrize("error", [GpuOutOfMemory, InvalidVideo])
async def test_what_a_worker_raises_arrives_as_what_it_is(error: type[ServiceError]):
    async with connected(EchoWorker(EchoSettings(fail_with=error.__name__, fail_times=1))) as (workers, address):
        with pytest.raises(error, match="told to fail"):
            await restore(workers, address)


async def test_a_plan_of_another_fingerprint_is_refused_by_the_worker():
    async with connected(EchoWorker(EchoSettings(fingerprint="echo-2"))) as (workers, address):
        with pytest.raises(FingerprintChanged):
            await restore(workers, address)


async def test_what_goes_wrong_with_the_packets_ends_the_conversation():
    async def broken() -> AsyncIterator[Packet]:
        async for packet in packets(2):
            yield packet
        raise InvalidVideo("unreadable")

    async def keep(segment: Segment, data: bytes) -> None:
        pytest.fail("nothing is restored")

    async with connected(EchoWorker(EchoSettings())) as (workers, address):
        with pytest.raises(InvalidVideo, match="unreadable"):
            await workers.restore(address, TASK, broken(), keep, lambda *_: None)
        segments, _ = await restore(workers, address)
        assert len(segments) == 2, "the worker is free again"


class Scripted(worker_pb2_grpc.WorkerServicer):
    """Answers a span with what a test says."""

    def __init__(self, answer: Callable[[AsyncIterator[Any]], AsyncIterator[pb.RestoreResponse]]) -> None:
        self._answer = answer

    async def Status(self, request: pb.StatusRequest, context: Any) -> pb.StatusResponse:
        return pb.StatusResponse(state="ready")

    async def Restore(self, requests: Any, context: Any) -> AsyncIterator[pb.RestoreResponse]:
        async for response in self._answer(requests):
            yield response


async def silent(requests: AsyncIterator[Any]) -> AsyncIterator[pb.RestoreResponse]:
    async for _ in requests:
        pass
    yield pb.RestoreResponse()


async def unfinished(requests: AsyncIterator[Any]) -> AsyncIterator[pb.RestoreResponse]:
    yield pb.RestoreResponse(progress=pb.StageProgress(stage="dit"))


async def garbled(requests: AsyncIterator[Any]) -> AsyncIterator[pb.RestoreResponse]:
    yield pb.RestoreResponse(segment=pb.SegmentPart(first=0, end=4, data=b"x", last=True, sha256="0"))


@pytest.mark.parametrize(("answer", "error"), [(silent, DeadlinePassed), (unfinished, WorkerBroken), (garbled, ChunkOutOfOrder)])
async def test_a_worker_that_goes_wrong_is_noticed(answer: Any, error: type[ServiceError]):
    async with connected(Scripted(answer), stall_s=0.3) as (workers, address):
        with pytest.raises(error):
            await restore(workers, address)


async def hasty(requests: AsyncIterator[Any]) -> AsyncIterator[pb.RestoreResponse]:
    """Ends without waiting for acknowledgements."""
    for segment in TASK.segments:
        digest = hashlib.sha256(b"x").hexdigest()
        yield pb.RestoreResponse(
            segment=pb.SegmentPart(first=segment.first, end=segment.end, data=b"x", last=True, sha256=digest)
        )
    yield pb.RestoreResponse(done=pb.SpanDone(frames=6))


async def test_nothing_is_lost_of_a_worker_that_ends_before_its_segments_are_stored():
    async with connected(Scripted(hasty)) as (workers, address):
        segments: list[Segment] = []

        async def keep(segment: Segment, data: bytes) -> None:
            # The call is over before the segment is stored.
            await asyncio.sleep(0.2)
            segments.append(segment)

        outcome = await workers.restore(address, TASK, packets(), keep, lambda *_: None)
    assert (segments, outcome.frames) == (list(TASK.segments), 6)


async def test_cancelling_frees_the_worker():
    async with connected(EchoWorker(EchoSettings())) as (workers, address):
        storing = asyncio.Event()

        async def keep(segment: Segment, data: bytes) -> None:
            storing.set()
            await asyncio.Event().wait()

        running = asyncio.create_task(workers.restore(address, TASK, packets(), keep, lambda *_: None))
        await storing.wait()
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len((await restore(workers, address))[0]) == 2


async def test_gateway_and_worker_know_each_other_by_certificates_and_go_on_when_these_are_renewed(tmp_path: Path):
    authority = Authority(tmp_path)
    worker = authority.sign("worker", "worker.example")
    tls = ServerTls(certificate=worker.certificate, key=worker.key, client_ca=authority.ca)
    by = ChannelTls(ca=authority.ca, server_name="worker.example")
    async with connected(EchoWorker(EchoSettings()), tls=tls, by=by) as (workers, _):
        assert workers.views()[0].lost
        assert "a certificate that it trusts" in workers.views()[0].detail
    gateway, stranger = authority.sign("gateway"), Authority(tmp_path / "other").sign("gateway")
    by = replace(by, certificate=gateway.certificate, key=gateway.key)
    gateway.certificate.write_bytes(stranger.certificate.read_bytes())
    gateway.key.write_bytes(stranger.key.read_bytes())
    async with connected(EchoWorker(EchoSettings()), tls=tls, by=by) as (workers, address):
        assert workers.views()[0].lost
        authority.sign("gateway")
        while workers.views()[0].lost:
            await asyncio.sleep(0.02)
        segments, _ = await restore(workers, address)
        assert segments == list(TASK.segments)
