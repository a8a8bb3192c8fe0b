import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.common.errors import SettingsError
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc import server as rpc_server
from services.common.rpc.server import Server, open_channel

NAME = "seedvr2.v1.Gateway"
Serving = health_pb2.HealthCheckResponse


class Gateway(gateway_pb2_grpc.GatewayServicer):
    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=pb.Job(job_id=f"{context.time_remaining():.0f}"))

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.WatchJobResponse]:
        while True:
            yield pb.WatchJobResponse(job=pb.Job(job_id=context.peer()))
            await asyncio.sleep(0.1)


@contextlib.asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    server = Server("127.0.0.1:0", **options)
    server.add(NAME, lambda s: gateway_pb2_grpc.add_GatewayServicer_to_server(Gateway(), s))
    async with open_channel(f"127.0.0.1:{await server.start()}") as channel:
        yield server, channel
    await server.stop(0)


@pytest.fixture
async def running() -> AsyncIterator[tuple[Server, grpc.aio.Channel]]:
    async with serving() as found:
        yield found


async def _health(channel: grpc.aio.Channel, name: str = NAME) -> int:
    return (await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(service=name))).status


async def test_health_follows_what_the_service_says(running: tuple[Server, grpc.aio.Channel]):
    server, channel = running
    assert await _health(channel) == await _health(channel, "") == Serving.NOT_SERVING
    await server.set_serving(True)
    assert await _health(channel) == await _health(channel, "") == Serving.SERVING
    await server.set_serving(False)
    assert await _health(channel) == Serving.NOT_SERVING


async def test_health_of_an_unknown_service_is_not_found(running: tuple[Server, grpc.aio.Channel]):
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _health(running[1], "nobody")
    assert caught.value.code() is grpc.StatusCode.NOT_FOUND


async def test_reflection_lists_the_service(running: tuple[Server, grpc.aio.Channel]):
    stub = reflection_pb2_grpc.ServerReflectionStub(running[1])
    requests = iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    answers = [answer async for answer in stub.ServerReflectionInfo(requests)]
    assert NAME in {service.name for service in answers[0].list_services_response.service}


async def test_reflection_can_be_switched_off():
    server = Server("127.0.0.1:0", reflection=False)
    async with open_channel(f"127.0.0.1:{await server.start()}") as channel:
        stub = reflection_pb2_grpc.ServerReflectionStub(channel)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await anext(aiter(stub.ServerReflectionInfo(iter([reflection_pb2.ServerReflectionRequest(list_services="")]))))
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    await server.stop(0)


async def test_a_port_that_is_taken_is_refused_in_words(running: tuple[Server, grpc.aio.Channel]):
    first = Server("127.0.0.1:0")
    port = await first.start()
    second = Server(f"127.0.0.1:{port}")
    with pytest.raises(SettingsError, match="port is taken"):
        await second.start()
    await first.stop(0)
    await second.stop(0)


async def test_health_can_be_watched(running: tuple[Server, grpc.aio.Channel]):
    server, channel = running
    for name in ("", NAME):
        watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=name))
        for expected in (False, True, False):
            await server.set_serving(expected)
            answer = await watching.read()
            assert (answer.status == Serving.SERVING) is expected
        watching.cancel()


async def test_a_server_that_stops_says_so_first(running: tuple[Server, grpc.aio.Channel]):
    server, channel = running
    await server.set_serving(True)
    watching = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(service=NAME))
    assert (await watching.read()).status == Serving.SERVING
    stopping = asyncio.create_task(server.stop(5))
    assert (await watching.read()).status == Serving.NOT_SERVING
    watching.cancel()
    await stopping


async def test_an_old_connection_is_left_and_no_call_fails_by_it():
    async with serving(connection_age_s=0.5, connection_grace_s=0.5) as (_, channel):
        stub, peers = gateway_pb2_grpc.GatewayStub(channel), set[str]()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for message in stub.WatchJob(pb.WatchJobRequest()):
                peers.add(message.job.job_id)
        assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
        async with asyncio.timeout(30):
            while len(peers) < 3:
                await stub.GetJob(pb.GetJobRequest(), timeout=10)
                watching = stub.WatchJob(pb.WatchJobRequest())
                peers.add((await watching.read()).job.job_id)
                watching.cancel()
                await asyncio.sleep(0.05)


async def test_clients_of_a_name_with_many_addresses_spread_over_them():
    servers = [Server("127.0.0.1:0") for _ in range(2)]
    ports = [await server.start() for server in servers]
    await servers[0].set_serving(True)
    found = set()
    for _ in range(24):
        async with open_channel("ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)) as channel:
            found.add(await _health(channel, ""))
    assert found == {Serving.SERVING, Serving.NOT_SERVING}
    for server in servers:
        await server.stop(0)


async def test_a_deadline_reaches_the_handler(running: tuple[Server, grpc.aio.Channel]):
    answer = await gateway_pb2_grpc.GatewayStub(running[1]).GetJob(pb.GetJobRequest(), timeout=1000)
    assert 900 < int(answer.job.job_id) < 1100


def test_clients_ping_no_more_often_than_servers_allow_and_messages_are_far_from_their_limit():
    server, channel = dict(rpc_server._SERVER_OPTIONS), dict(rpc_server._CHANNEL_OPTIONS)
    assert channel["grpc.keepalive_time_ms"] > server["grpc.http2.min_recv_ping_interval_without_data_ms"]
    assert rpc_server.PIECE_BYTES * 2 < rpc_server.MAX_MESSAGE_BYTES
