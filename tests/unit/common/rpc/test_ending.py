import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.common.errors import TooLarge
from services.common.rpc.ending import CallEnding
from services.common.rpc.server import Server, open_channel
from services.common.rpc.status import error_of

TRIES = 20
PIECE = b"x" * 100_000


class _Refusing(grpc.GenericRpcHandler):  # type: ignore[misc]
    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        if details.method.endswith("Unary"):
            return grpc.stream_unary_rpc_method_handler(self._refuse)
        return grpc.stream_stream_rpc_method_handler(self._refuse_stream)

    async def _refuse(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        await anext(requests)
        raise TooLarge("At most one piece.")

    async def _refuse_stream(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        yield await anext(requests)
        raise TooLarge("At most one piece.")


@contextlib.asynccontextmanager
async def _channel() -> AsyncIterator[grpc.aio.Channel]:
    server = Server("127.0.0.1:0")
    server.add("test.Refusing", lambda it: it.add_generic_rpc_handlers((_Refusing(),)))
    port = await server.start()
    async with open_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await server.stop(0)


async def _end_of(call: Any) -> grpc.aio.AioRpcError:
    ending = CallEnding(call)
    reading = asyncio.create_task(_read(call))
    try:
        with contextlib.suppress(asyncio.InvalidStateError):
            while True:
                await call.write(PIECE)
        await reading
    except grpc.aio.AioRpcError as raised:
        return await ending.failure(raised)
    finally:
        await asyncio.wait([reading])
        reading.exception()
    raise AssertionError("the call ended well")


async def _read(call: Any) -> None:
    if hasattr(call, "read"):
        async for _ in call:
            pass
    else:
        await call


@pytest.mark.parametrize("kind", ["stream_unary", "stream_stream"])
async def test_a_refusal_keeps_its_reason_although_a_write_failed_meanwhile(kind: str):
    async with _channel() as channel:
        for _ in range(TRIES):
            method = getattr(channel, kind)("/test.Refusing/" + ("Unary" if kind == "stream_unary" else "Stream"))
            error = error_of(await _end_of(method()))
            assert isinstance(error, TooLarge)
            assert error.message == "At most one piece."
