import asyncio
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.client import GatewayClient
from services.common.errors import (
    AlreadyExists,
    DeadlinePassed,
    InvalidOption,
    JobNotFound,
    QueueFull,
    StoreUnavailable,
    TooLarge,
    Unavailable,
    WorkerUnavailable,
    WrongState,
)
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.unit.common.client.conftest import SIZE_BYTES
from tests.unit.common.fake_gateway import FakeGateway, give_result
from tests.unit.common.relay import Relay


async def test_an_upload_goes_on_where_a_cut_connection_stopped(
    gateway: FakeGateway, relay: Relay, client: GatewayClient, video: Path
):
    relay.up_bytes = 3 << 20
    told: list[tuple[int, int]] = []
    upload = await client.upload_file(video, on_progress=lambda done, size: told.append((done, size)))
    assert relay.cuts == 1
    assert upload.complete
    assert bytes(gateway.kept) == video.read_bytes()
    assert len(gateway.offsets) == 2
    assert gateway.offsets[1] >= 1 << 20
    assert told[-1] == (SIZE_BYTES, SIZE_BYTES)


async def test_an_upload_survives_a_gateway_that_has_not_noticed_the_cut_yet(
    gateway: FakeGateway, client: GatewayClient, video: Path
):
    # Another stream brings bytes between the answer about the offset and the stream that starts there.
    await client.create_upload(video.name, SIZE_BYTES, "mine")
    gateway.kept += video.read_bytes()[: 1 << 20]
    upload = await client.upload_file(video, upload_id="mine")
    assert gateway.offsets[0] == 0
    assert upload.received_bytes == SIZE_BYTES


async def test_a_complete_upload_is_not_sent_again(gateway: FakeGateway, client: GatewayClient, video: Path):
    await client.upload_file(video, upload_id="mine")
    await client.upload_file(video, upload_id="mine")
    assert gateway.offsets == [0]


async def test_another_file_under_a_known_upload_id_is_refused(client: GatewayClient, video: Path):
    await client.upload_file(video, upload_id="mine")
    video.write_bytes(os.urandom(SIZE_BYTES))
    with pytest.raises(AlreadyExists, match="another file"):
        await client.upload_file(video, upload_id="mine")


async def test_a_refusal_while_bytes_are_still_being_sent_arrives(gateway: FakeGateway, client: GatewayClient, video: Path):
    await client.create_upload(video.name, SIZE_BYTES, "mine")
    gateway.errors = [TooLarge("At most 1 MiB.")]

    async def endless() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 100_000

    with pytest.raises(TooLarge, match="At most 1 MiB"):
        await client.write_upload("mine", 0, endless(), finish=True)


async def test_a_part_of_a_result_is_read_across_a_cut(gateway: FakeGateway, relay: Relay, client: GatewayClient):
    result = give_result(gateway, SIZE_BYTES)
    relay.down_bytes = 1 << 20
    info, pieces = await client.read_result("job", offset=1000, length=2_000_000)
    assert b"".join([piece async for piece in pieces]) == result[1000:2_001_000]
    assert relay.cuts == 1
    assert info.size_bytes == SIZE_BYTES


async def test_a_result_that_changes_while_it_is_read_is_an_error(gateway: FakeGateway, relay: Relay, client: GatewayClient):
    give_result(gateway, SIZE_BYTES)
    relay.down_bytes = 1 << 20
    _, pieces = await client.read_result("job")
    gateway.result_sha256 = "1" * 64
    with pytest.raises(WrongState, match="changed"):
        _ = [piece async for piece in pieces]


async def test_a_job_is_watched_to_its_end_across_a_cut(gateway: FakeGateway, relay: Relay, client: GatewayClient):
    states = []
    async for job in client.watch_job("job"):
        states.append(job.state)
        if len(states) == 1:
            await gateway.watching.wait()
            relay.cut()
            gateway.job.state = pb.JOB_STATE_SUCCEEDED
            gateway.changed.set()
    assert states == [pb.JOB_STATE_RESTORING, pb.JOB_STATE_SUCCEEDED]
    assert [name for name, _ in gateway.calls] == ["WatchJob", "WatchJob"]


async def test_a_watch_that_the_gateway_ends_early_is_taken_up_again(gateway: FakeGateway, client: GatewayClient):
    gateway.changed.set()
    seen = 0
    async for _ in client.watch_job("job"):
        seen += 1
        if seen == 5:
            gateway.job.state = pb.JOB_STATE_FAILED
    assert seen > 5


async def test_whoever_stops_watching_ends_the_stream(gateway: FakeGateway, client: GatewayClient):
    jobs = client.watch_job("job")
    await anext(jobs)
    await jobs.aclose()
    await asyncio.wait_for(gateway.left.wait(), 5)


async def test_an_error_arrives_as_its_class_with_the_field(gateway: FakeGateway, client: GatewayClient):
    gateway.errors = [InvalidOption("Scale is 0.5 to 8.", field="request.target.scale")]
    with pytest.raises(InvalidOption, match=r"Scale is 0\.5 to 8\.") as caught:
        await client.get_job("job")
    assert caught.value.field == "request.target.scale"


async def test_a_stream_passes_errors_on_that_a_repetition_would_not_mend(gateway: FakeGateway, client: GatewayClient):
    gateway.errors = [JobNotFound("There is no job x.")]
    with pytest.raises(JobNotFound):
        await anext(client.watch_job("x"))
    assert len(gateway.calls) == 1


async def test_a_call_is_repeated_while_the_store_is_away(gateway: FakeGateway, client: GatewayClient):
    gateway.errors = [StoreUnavailable("The store doesn't answer."), StoreUnavailable("The store doesn't answer.")]
    assert (await client.get_job("job")).job_id == "job"
    assert len(gateway.calls) == 3


async def test_news_about_workers_is_not_waited_out(gateway: FakeGateway, client: GatewayClient):
    gateway.errors = [WorkerUnavailable("No worker serves nano yet.", retry_after_s=5)]
    with pytest.raises(WorkerUnavailable) as caught:
        await client.models()
    assert caught.value.retry_after_s == 5


async def test_a_full_queue_is_waited_out_as_long_as_the_caller_wants(gateway: FakeGateway, client: GatewayClient):
    full = [QueueFull("1000 jobs are waiting.", retry_after_s=0.01) for _ in range(3)]
    gateway.errors = full[:2]
    assert (await client.create_job(pb.JobRequest(), "mine", queue_s=60)).job_id == "mine"
    assert [request.job_id for _, request in gateway.calls] == ["mine"] * 3
    gateway.errors = full[2:]
    with pytest.raises(QueueFull):
        await client.create_job(pb.JobRequest(), "mine")


async def test_a_job_can_be_waited_for(gateway: FakeGateway, client: GatewayClient):
    gateway.job.state = pb.JOB_STATE_FAILED
    assert (await client.wait_job("job")).state == pb.JOB_STATE_FAILED


async def test_what_could_harm_twice_is_sent_once(gateway: FakeGateway, client: GatewayClient):
    gateway.errors = [StoreUnavailable("The store doesn't answer.")]
    with pytest.raises(StoreUnavailable):
        await client.delete_job("job")
    assert len(gateway.calls) == 1


async def test_cancelling_twice_is_as_good_as_once(gateway: FakeGateway, client: GatewayClient):
    gateway.job.state = pb.JOB_STATE_CANCELLED
    gateway.errors = [WrongState("It has ended.")]
    assert (await client.cancel_job("job")).state == pb.JOB_STATE_CANCELLED
    gateway.job.state = pb.JOB_STATE_SUCCEEDED
    gateway.errors = [WrongState("It has ended.")]
    with pytest.raises(WrongState):
        await client.cancel_job("job")


async def test_an_address_where_nobody_is_gives_a_sentence(unused_tcp_port: int):
    async with GatewayClient(f"127.0.0.1:{unused_tcp_port}", timeout_s=0.5, patience_s=0.5) as client:
        with pytest.raises(Unavailable, match=f"No gateway answers at 127.0.0.1:{unused_tcp_port}"):
            await client.models()
        with pytest.raises(Unavailable, match="No gateway answers"):
            await anext(client.watch_job("job"))
        with pytest.raises(Unavailable, match="No gateway answers"):
            await client.wait_connected(0.2)


async def test_a_gateway_that_says_nothing_is_given_up(gateway: FakeGateway, relay: Relay):
    gateway.silent = True
    async with GatewayClient(relay.address, timeout_s=0.5) as client:
        with pytest.raises(DeadlinePassed, match=r"didn't answer within 0\.5 s"):
            await client.models()
