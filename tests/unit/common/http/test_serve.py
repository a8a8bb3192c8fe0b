import asyncio
import socket
import time

import httpx
import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import PlainTextResponse, StreamingResponse
from starlette.routing import Route

from services.common.errors import SettingsError
from services.common.http.serve import HttpServer, address_of, bound_socket


async def test_a_server_on_port_zero_tells_the_port_that_it_took() -> None:
    listener = bound_socket("127.0.0.1:0")
    server, stop = HttpServer(FastAPI(routes=[Route("/", hello)]), listener, 1), asyncio.Event()
    serving = asyncio.create_task(server.run_until(stop))
    await server.wait_listening()
    async with httpx.AsyncClient() as client:
        assert (await client.get(f"http://{address_of(listener)}/")).text == "hello"
    stop.set()
    await serving


@pytest.mark.parametrize("address", ["127.0.0.1:no", "127.0.0.1:65536", "127.0.0.1:-1", "127.0.0.1", "256.1.1.1:0"])
def test_an_address_that_is_none_is_refused(address: str) -> None:
    with pytest.raises(SettingsError, match="Can't listen"):
        bound_socket(address)


def test_a_port_that_is_taken_is_refused() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(SettingsError, match="choose another"):
        bound_socket(address_of(taken))


async def test_a_stop_waits_no_longer_for_a_transfer_than_it_is_told() -> None:
    begun = asyncio.Event()

    async def endless(request: Request) -> StreamingResponse:
        async def stream():  # type: ignore[no-untyped-def]
            yield b"first,"
            begun.set()
            await asyncio.Event().wait()

        return StreamingResponse(stream())

    listener = bound_socket("127.0.0.1:0")
    server, stop = HttpServer(FastAPI(routes=[Route("/files/a", endless)]), listener, 1), asyncio.Event()
    serving = asyncio.create_task(server.run_until(stop))
    await server.wait_listening()
    async with httpx.AsyncClient(base_url=f"http://{address_of(listener)}", timeout=30) as client:
        transfer = asyncio.create_task(client.get("/files/a"))
        await begun.wait()
        stop.set()
        before = time.monotonic()
        await serving
        with pytest.raises(httpx.TransportError):
            await transfer
    assert time.monotonic() - before < 10


async def hello(request: Request) -> PlainTextResponse:
    return PlainTextResponse("hello")
