import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from services.common.errors import SettingsError
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc.server import Server, open_channel

NAME = "seedvr2.v1.Gateway"
Serving = health_pb2.HealthCheckResponse


@pytest.fixture
async def running():
    server = Server("127.0.0.1:0")
    server.add(NAME, lambda s: gateway_pb2_grpc.add_GatewayServicer_to_server(gateway_pb2_grpc.GatewayServicer(), s))
    async with open_channel(f"127.0.0.1:{await server.start()}") as channel:
        yield server, channel
    await server.stop(0)


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


async def test_a_port_that_is_taken_is_refused_in_words(running: tuple[Server, grpc.aio.Channel]):
    first = Server("127.0.0.1:0")
    port = await first.start()
    second = Server(f"127.0.0.1:{port}")
    with pytest.raises(SettingsError, match="port is taken"):
        await second.start()
    await first.stop(0)
    await second.stop(0)
