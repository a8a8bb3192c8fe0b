import asyncio
import socket
import ssl
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from services.common.errors import SettingsError
from services.common.http.serve import HttpServer, address_of, bound_socket
from services.common.http.tls import server_context
from services.common.rpc.tls import ServerTls
from tests.certificates import Authority


def shown_serial(address: str, ca: Path) -> int:
    """Number of the certificate that a server shows."""
    host, port = address.rsplit(":", 1)
    context = ssl.create_default_context(cafile=ca)
    with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as connection:
        return int(connection.getpeercert()["serialNumber"], 16)  # type: ignore[index,arg-type]


async def test_a_certificate_that_changes_is_shown_at_the_next_connection(tmp_path: Path):
    authority = Authority(tmp_path / "ca")
    pair = authority.sign("server")
    listener, stop = bound_socket("127.0.0.1:0"), asyncio.Event()
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("hello"))])
    server = HttpServer(app, listener, 1, tls=server_context(ServerTls(certificate=pair.certificate, key=pair.key)))
    serving = asyncio.create_task(server.run_until(stop))
    await server.wait_listening()
    async with httpx.AsyncClient(verify=ssl.create_default_context(cafile=authority.ca)) as client:
        assert (await client.get(f"https://{address_of(listener)}/")).text == "hello"
    before = await asyncio.to_thread(shown_serial, address_of(listener), authority.ca)
    authority.sign("server")
    assert await asyncio.to_thread(shown_serial, address_of(listener), authority.ca) != before
    stop.set()
    await serving


def test_files_that_are_no_certificate_are_refused(tmp_path: Path):
    (tmp_path / "a").write_text("nothing")
    with pytest.raises(SettingsError, match="no certificate"):
        server_context(ServerTls(certificate=tmp_path / "a", key=tmp_path / "a"))
    expired = Authority(tmp_path / "ca").sign("server", days=-1)
    with pytest.raises(SettingsError, match="has expired"):
        server_context(ServerTls(certificate=expired.certificate, key=expired.key))
