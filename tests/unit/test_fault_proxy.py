"""The way that fails as it is told, over any protocol: what chaos is made of must itself be sure."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.fault_proxy import Fault, FaultProxy


@asynccontextmanager
async def echoing() -> AsyncIterator[FaultProxy]:
    """A proxy before a server that sends back what it gets."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while piece := await reader.read(1000):
                writer.write(piece)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(echo, "127.0.0.1", 0)
    proxy = FaultProxy(f"127.0.0.1:{server.sockets[0].getsockname()[1]}")
    async with server, proxy.listening():
        yield proxy


async def said(proxy: FaultProxy, text: bytes = b"hello") -> bytes:
    """What comes back before the end."""
    reader, writer = await asyncio.open_connection(*proxy.address.split(":"))
    try:
        writer.write(text)
        writer.write_eof()
        return await reader.read(-1)
    finally:
        writer.transport.abort()


async def test_without_a_fault_all_goes_both_ways():
    async with echoing() as proxy:
        assert await said(proxy, bytes(100_000)) == bytes(100_000)


async def test_so_many_connections_are_refused_and_then_none():
    async with echoing() as proxy:
        proxy.set(Fault(refuse=True, times=2))
        for _ in range(2):
            with pytest.raises(ConnectionError):
                await said(proxy)
        assert await said(proxy) == b"hello"


@pytest.mark.parametrize("fault", [Fault(cut_answer_after=3), Fault(cut_request_after=3)], ids=["answer", "request"])
async def test_a_connection_is_cut_after_so_many_bytes(fault: Fault):
    async with echoing() as proxy:
        proxy.set(fault)
        with pytest.raises(ConnectionError):
            await said(proxy)
        proxy.set()
        assert await said(proxy) == b"hello"


async def test_what_is_slow_arrives_late():
    async with echoing() as proxy:
        proxy.set(Fault(delay_s=0.1))
        began = time.monotonic()
        assert await said(proxy) == b"hello"
        assert time.monotonic() - began >= 0.2


async def test_connections_that_are_there_are_cut_too():
    async with echoing() as proxy:
        reader, writer = await asyncio.open_connection(*proxy.address.split(":"))
        writer.write(b"hello")
        assert await reader.readexactly(5) == b"hello"
        proxy.set(Fault(silent=True))
        with pytest.raises(ConnectionError):
            await reader.readexactly(1)
        writer.transport.abort()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(said(proxy), 0.2)
        proxy.set()
        assert await said(proxy) == b"hello"


async def test_a_server_that_is_away_resets_the_connection():
    proxy = FaultProxy("127.0.0.1:1")
    async with proxy.listening():
        with pytest.raises(ConnectionError):
            await said(proxy)
