import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.client import GatewayClient
from services.common.errors import SettingsError, Unavailable
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc.renewed import RenewedChannel
from services.common.rpc.server import Server, open_channel
from services.common.rpc.tls import ChannelTls, ServerTls, channel_tls, server_credentials, server_tls
from tests.certificates import Authority, Pair
from tests.unit.common.fake_gateway import FakeGateway


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def good(authority: Authority) -> Pair:
    return authority.sign("good")


@contextlib.asynccontextmanager
async def _serving(tls: ServerTls | None, **options: str) -> AsyncIterator[str]:
    server = Server("127.0.0.1:0", tls=tls, **options)
    server.add("seedvr2.v1.Gateway", lambda s: gateway_pb2_grpc.add_GatewayServicer_to_server(FakeGateway(), s))
    yield f"127.0.0.1:{await server.start()}"
    await server.stop(0)


def _server(pair: Pair, client_ca: Path | None = None) -> ServerTls:
    return ServerTls(certificate=pair.certificate, key=pair.key, client_ca=client_ca)


def _client(authority: Authority, pair: Pair | None = None, server_name: str = "") -> ChannelTls:
    certificate, key = pair or (None, None)
    return ChannelTls(ca=authority.ca, certificate=certificate, key=key, server_name=server_name)


async def _call(address: str, tls: ChannelTls | None) -> None:
    async with GatewayClient(address, timeout_s=3, tls=tls) as client:
        await client.wait_connected(3)


async def test_a_client_that_trusts_the_authority_is_served(authority: Authority, good: Pair):
    async with _serving(_server(good)) as address:
        await _call(f"grpcs://{address}", _client(authority))


async def test_what_is_wrong_with_a_server_is_told_in_words(authority: Authority, good: Pair, tmp_path: Path):
    other = Authority(tmp_path, "another")
    async with _serving(_server(good)) as address:
        with pytest.raises(Unavailable, match="signed by nobody whom this side trusts"):
            await _call(address, _client(other))
        with pytest.raises(Unavailable, match="perhaps it wants TLS"):
            await _call(address, None)
    async with _serving(_server(authority.sign("elsewhere", "elsewhere.example"))) as address:
        with pytest.raises(Unavailable, match="its certificate is for another name"):
            await _call(address, _client(authority))
        await _call(address, _client(authority, server_name="elsewhere.example"))
    async with _serving(None) as address:
        with pytest.raises(Unavailable, match="it doesn't speak TLS"):
            await _call(address, _client(authority))


async def test_a_server_shows_a_renewed_certificate_without_a_restart(authority: Authority):
    pair = authority.sign("renewed", "old.example")
    async with _serving(_server(pair)) as address:
        await _call(address, _client(authority, server_name="old.example"))
        authority.sign("renewed", "new.example")
        await _call(address, _client(authority, server_name="new.example"))


async def test_an_expired_certificate_stops_a_start_and_does_not_replace_a_good_one(authority: Authority):
    expired = authority.sign("expired", days=-1)
    with pytest.raises(SettingsError, match=r"expired\.pem.*the certificate has expired on .* renew it"):
        await Server("127.0.0.1:0", tls=_server(expired)).start()
    pair = authority.sign("turning")
    async with _serving(_server(pair)) as address:
        authority.sign("turning", days=-1)
        await _call(address, _client(authority))


async def test_a_server_that_wants_certificates_lets_only_their_owners_in(authority: Authority, good: Pair, tmp_path: Path):
    stranger = Authority(tmp_path, "another").sign("stranger")
    async with _serving(_server(good, authority.ca)) as address:
        await _call(address, _client(authority, authority.sign("client", "client.example")))
        for pair in (None, stranger):
            with pytest.raises(Unavailable, match="or a certificate that it trusts"):
                await _call(address, _client(authority, pair))


async def test_health_can_be_asked_without_tls_on_an_address_of_its_own(good: Pair, unused_tcp_port: int):
    health = f"127.0.0.1:{unused_tcp_port}"
    async with _serving(_server(good), health_address=health), open_channel(health) as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway_pb2_grpc.GatewayStub(channel).ListJobs(pb.ListJobsRequest(), timeout=3)
        assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_a_client_shows_a_renewed_certificate_without_a_restart(authority: Authority, good: Pair, tmp_path: Path):
    first, second = Authority(tmp_path / "1", "first"), Authority(tmp_path / "2", "second")
    pair, trusted = first.sign("client", "client.example"), tmp_path / "trusted.pem"
    trusted.write_bytes(first.ca.read_bytes())
    tls = ChannelTls(ca=authority.ca, certificate=pair.certificate, key=pair.key)
    async with _serving(_server(good, trusted)) as address, GatewayClient(f"grpcs://{address}", timeout_s=3, tls=tls) as client:
        await client.list_jobs()
        known = client._calls.channel
        await client.list_jobs()
        assert client._calls.channel is known
        # From now on the server lets in whom the other one signs.
        trusted.write_bytes(second.ca.read_bytes())
        renewed = second.sign("client", "client.example")
        pair.key.write_bytes(renewed.key.read_bytes())
        await client.list_jobs()
        assert client._calls.channel is known, "half of a pair is no use"
        pair.certificate.write_bytes(renewed.certificate.read_bytes())
        await client.list_jobs()
        assert client._calls.channel is not known


async def test_a_stream_goes_on_while_certificates_are_renewed(authority: Authority, good: Pair, tmp_path: Path):
    ca = tmp_path / "ca.pem"
    ca.write_bytes(authority.ca.read_bytes())
    server = Server("127.0.0.1:0", tls=_server(good))
    renewed = RenewedChannel(f"grpcs://127.0.0.1:{await server.start()}", ChannelTls(ca=ca))
    watching = health_pb2_grpc.HealthStub(renewed.get()).Watch(health_pb2.HealthCheckRequest())
    assert (await watching.read()).status == health_pb2.HealthCheckResponse.NOT_SERVING
    before, waiting = renewed.get(), asyncio.create_task(watching.read())
    ca.write_bytes(2 * authority.ca.read_bytes())
    assert renewed.get() is not before
    await server.set_serving(True)
    assert (await waiting).status == health_pb2.HealthCheckResponse.SERVING
    answer = await health_pb2_grpc.HealthStub(renewed.get()).Check(health_pb2.HealthCheckRequest())
    assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await renewed.aclose()
    await server.stop(0)


def test_files_that_are_wrong_are_told_by_name(authority: Authority, good: Pair, tmp_path: Path):
    nothing = tmp_path / "nothing.pem"
    nothing.write_text("hello")
    for tls, words in (
        (ServerTls(certificate=tmp_path / "missing.pem", key=good.key), "missing.pem can't be read"),
        (ServerTls(certificate=nothing, key=good.key), "nothing.pem.*no certificate in PEM form"),
        (ServerTls(certificate=good.certificate, key=nothing), "no private key in PEM form"),
        (ServerTls(certificate=good.certificate, key=authority.sign("b").key), "the key does not belong to the certificate"),
    ):
        with pytest.raises(SettingsError, match=words):
            server_credentials(tls)


def test_settings_that_do_not_fit_together_are_refused():
    assert server_tls("", "", "") is None
    assert channel_tls("") is None
    assert channel_tls("", "cert", "key") == ChannelTls(certificate=Path("cert"), key=Path("key"))
    for pair in (("cert", ""), ("", "key")):
        with pytest.raises(ValueError, match="belong together"):
            channel_tls("ca", *pair)
    for files in (("cert", "", ""), ("", "key", ""), ("", "", "ca")):
        with pytest.raises(ValueError, match="belong together"):
            server_tls(*files)
