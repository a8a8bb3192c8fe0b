import argparse
from pathlib import Path

import pytest

from services.cli.arguments import build_parser
from services.cli.connection import client_of, connected, own_client
from services.common.errors import SettingsError, Unavailable
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc.server import Server
from services.common.rpc.tls import ServerTls
from tests.certificates import Authority
from tests.unit.common.fake_gateway import FakeGateway


@pytest.fixture(autouse=True)
def _no_files_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("SEEDVR2_TOKEN_FILE", "SEEDVR2_CA_FILE"):
        monkeypatch.delenv(name, raising=False)


def _arguments(*typed: str) -> argparse.Namespace:
    return build_parser().parse_args(["jobs", "list", *typed])


async def test_a_token_and_whom_it_acts_for_go_with_each_call(gateway: FakeGateway, server: str, tmp_path: Path):
    token = tmp_path / "token"
    token.write_text("secret\n")
    async with connected(_arguments("--server", server, "--token-file", str(token), "--as", "alice")) as client:
        await client.list_jobs()
    assert {("authorization", "Bearer secret"), ("x-seedvr2-subject", "alice")} <= set(gateway.metadata)


async def test_the_environment_can_name_the_token(
    gateway: FakeGateway, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    token = tmp_path / "token"
    token.write_text("secret")
    monkeypatch.setenv("SEEDVR2_TOKEN_FILE", str(token))
    async with connected(_arguments("--server", server)) as client:
        await client.list_jobs()
    assert ("authorization", "Bearer secret") in gateway.metadata


async def test_a_gateway_with_tls_is_named_by_its_scheme(gateway: FakeGateway, tmp_path: Path):
    authority = Authority(tmp_path)
    pair = authority.sign("gateway")
    server = Server("127.0.0.1:0", tls=ServerTls(certificate=pair.certificate, key=pair.key))
    server.add("seedvr2.v1.Gateway", lambda s: gateway_pb2_grpc.add_GatewayServicer_to_server(gateway, s))
    address = f"grpcs://127.0.0.1:{await server.start()}"
    async with connected(_arguments("--server", address, "--ca", str(authority.ca))) as client:
        assert (await client.list_jobs()).jobs == []
    await server.stop(0)


async def test_a_token_that_would_travel_openly_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    token = tmp_path / "token"
    token.write_text("secret")
    for server, told in (("gateway:50051", True), ("grpcs://gateway:50051", False), ("127.0.0.1:50051", False)):
        await client_of(_arguments("--server", server, "--token-file", str(token))).aclose()
        assert ("without encryption" in capsys.readouterr().err) == told


async def test_a_file_that_is_not_there_is_told(tmp_path: Path):
    with pytest.raises(SettingsError, match="nowhere can't be read"):
        client_of(_arguments("--token-file", str(tmp_path / "nowhere")))


async def test_nobody_at_the_address_is_told(unused_tcp_port: int):
    with pytest.raises(Unavailable, match="No gateway answers"):
        async with connected(_arguments("--server", f"127.0.0.1:{unused_tcp_port}")):
            pass


async def test_a_gateway_of_its_own_is_shown_the_same_token(
    gateway: FakeGateway, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    token = tmp_path / "token"
    token.write_text("secret")
    monkeypatch.setenv("SEEDVR2_TOKEN_FILE", str(token))
    async with own_client(server) as client:
        await client.list_jobs()
    assert ("authorization", "Bearer secret") in gateway.metadata
