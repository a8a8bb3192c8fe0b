import contextlib
import http.server
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from services.common.check import fault_of, main
from services.common.http.tls import server_context
from services.common.rpc.server import LIVE, Server
from services.common.rpc.tls import ChannelTls, ServerTls
from tests.certificates import Authority


@contextlib.contextmanager
def page(status: int, tls: ssl.SSLContext | None = None) -> Iterator[str]:
    """A server that answers everything with one status; its address."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        if tls is not None:
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        # Whoever is not let in is no fault of the server.
        server.handle_error = lambda *_: None
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http{'s' if tls else ''}://127.0.0.1:{server.server_port}/healthz"
        finally:
            server.shutdown()
            thread.join()


@contextlib.asynccontextmanager
async def health(*, serving: bool, tls: ServerTls | None = None) -> AsyncIterator[str]:
    """A server with a health service; its address."""
    server = Server("127.0.0.1:0", tls=tls)
    server.add("seedvr2.v1.Example", lambda _: None)
    port = await server.start()
    await server.set_serving(serving)
    try:
        yield f"grpc{'s' if tls else ''}://127.0.0.1:{port}"
    finally:
        await server.stop(0)


async def test_a_service_that_serves_is_well():
    async with health(serving=True) as address:
        assert await fault_of(urlsplit(address), 5) == ""
        assert await fault_of(urlsplit(f"{address}/seedvr2.v1.Example"), 5) == ""


async def test_a_service_that_does_not_serve_yet_is_not_well_but_lives():
    async with health(serving=False) as address:
        assert await fault_of(urlsplit(f"{address}/{LIVE}"), 5) == ""
        assert await fault_of(urlsplit(address), 5) == "NOT_SERVING"


async def test_a_service_that_the_server_does_not_have_is_not_well():
    async with health(serving=True) as address:
        assert (await fault_of(urlsplit(f"{address}/seedvr2.v1.Other"), 5)).startswith("NOT_FOUND")


async def test_a_service_with_tls_is_well_for_who_trusts_it(tmp_path: Path):
    authority = Authority(tmp_path)
    certificate, key = authority.sign("server")
    async with health(serving=True, tls=ServerTls(certificate=certificate, key=key)) as address:
        assert await fault_of(urlsplit(address), 5, ChannelTls(ca=authority.ca)) == ""
        assert (await fault_of(urlsplit(address), 5)).startswith("UNAVAILABLE")
        assert "nothing.pem" in await fault_of(urlsplit(address), 5, ChannelTls(ca=tmp_path / "nothing.pem"))


async def test_services_that_want_a_certificate_are_well_for_who_shows_one(tmp_path: Path):
    authority = Authority(tmp_path)
    pair, client = authority.sign("server"), authority.sign("client", "client.example")
    tls = ServerTls(certificate=pair.certificate, key=pair.key, client_ca=authority.ca)
    shown = ChannelTls(ca=authority.ca, certificate=client.certificate, key=client.key)
    async with health(serving=True, tls=tls) as address:
        assert await fault_of(urlsplit(address), 5, shown) == ""
        assert (await fault_of(urlsplit(address), 5, ChannelTls(ca=authority.ca))).startswith("UNAVAILABLE")
    with page(200, server_context(tls)) as address:
        assert await fault_of(urlsplit(address), 5, shown) == ""
        for nobody in (ChannelTls(ca=authority.ca), None):
            assert await fault_of(urlsplit(address), 5, nobody) != ""
        assert "nothing.pem" in await fault_of(urlsplit(address), 5, ChannelTls(ca=tmp_path / "nothing.pem"))


async def test_pages_are_well_by_their_status():
    with page(200) as good, page(503) as bad:
        assert await fault_of(urlsplit(good), 5) == ""
        assert "503" in await fault_of(urlsplit(bad), 5)


def test_all_addresses_have_to_be_well(capsys: pytest.CaptureFixture[str]):
    with page(200) as good:
        assert main([good]) == 0
        assert main(["--timeout", "1", good, f"grpc://127.0.0.1:{free_port()}"]) == 1
    assert capsys.readouterr().err.startswith("grpc://127.0.0.1:")


def test_an_address_of_another_kind_is_wrong_usage(capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as ended:
        main(["file:///etc/passwd"])
    assert ended.value.code == 2
    assert "is not like grpc://host:port" in capsys.readouterr().err


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
