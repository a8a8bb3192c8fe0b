"""How a call ended whose writes may fail."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import grpc

from services.common.rpc.tls import handshake_words

_WAIT_S, _PAUSE_S = 5.0, 0.02
_OVERWRITTEN = "Internal error from Core"


class CallEnding:
    """Keeps the status with which the other side ended a call; make it before the first write.

    grpc.aio replaces that status by INTERNAL when a write fails while the call ends, and with it the reason
    (https://github.com/grpc/grpc/issues/36066). Where the write fails first, the true status follows.
    """

    def __init__(self, call: grpc.aio.Call) -> None:
        self._call = call
        self._first: grpc.aio.AioRpcError | None = None
        call.add_done_callback(self._note)

    async def failure(self, raised: grpc.aio.AioRpcError) -> grpc.aio.AioRpcError:
        """The failure behind the one that reading, writing or awaiting the call ``raised``."""
        if not _is_overwritten(raised):
            return raised
        if self._first is not None and not _is_overwritten(self._first):
            return self._first
        for _ in range(int(_WAIT_S / _PAUSE_S)):
            if not _is_overwritten(now := _failure(self._call)):
                return now
            await asyncio.sleep(_PAUSE_S)
        return _error(grpc.StatusCode.UNAVAILABLE, grpc.aio.Metadata(), _OVERWRITTEN)

    def _note(self, call: grpc.aio.Call) -> None:
        self._first = _failure(call)


def why(failure: grpc.RpcError) -> str:
    """What happened to a call, in a few words."""
    return handshake_words(failure.details() or "") or {
        grpc.StatusCode.UNAVAILABLE: "no connection",
        grpc.StatusCode.DEADLINE_EXCEEDED: "no answer in time",
        grpc.StatusCode.UNIMPLEMENTED: "it is no inference service",
    }.get(failure.code(), str(failure.code().name).lower().replace("_", " "))


def _is_overwritten(failure: grpc.aio.AioRpcError) -> bool:
    return failure.code() is grpc.StatusCode.INTERNAL and failure.details() == _OVERWRITTEN


def _failure(call: grpc.aio.Call) -> grpc.aio.AioRpcError:
    return _error(_value(call.code()), _value(call.trailing_metadata()), _value(call.details()))


def _error(code: grpc.StatusCode, trailing: grpc.aio.Metadata, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), trailing, details)


def _value(ready: Coroutine[Any, Any, Any]) -> Any:
    """What a coroutine returns that has nothing to wait for; awaiting it in a task would be too late."""
    try:
        ready.send(None)
    except StopIteration as done:
        return done.value
    raise RuntimeError("the status of a call that is done had to be waited for")
