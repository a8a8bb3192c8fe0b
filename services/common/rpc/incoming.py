"""Calls that come in: each belongs to a request and a trace, says so in its answer, and leaves a line in the log."""

import contextlib
import functools
import logging
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc

from services.common import tracing
from services.common.errors import ServiceError
from services.common.rpc.handlers import rewrapped
from services.common.rpc.status import code_of

_log = logging.getLogger(__name__)
_OURS = "/seedvr2."
# Asked every second by everybody.
_QUIET = frozenset({"/seedvr2.v1.Worker/Status"})


class TracingInterceptor(grpc.aio.ServerInterceptor):  # type: ignore[misc]
    """Takes request id and trace from a call's metadata, or makes them, and gives the request id back."""

    async def intercept_service(self, continuation: Callable[..., Any], details: grpc.HandlerCallDetails) -> Any:
        """Wrap the handler of one call."""
        handler = await continuation(details)
        if handler is None or not details.method.startswith(_OURS):
            return handler
        return rewrapped(
            handler, unary=functools.partial(_unary, details.method), stream=functools.partial(_stream, details.method)
        )  # fmt: skip


def _unary(method: str, handler: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: Any, context: grpc.aio.ServicerContext) -> Any:
        async with _followed(method, context):
            return await handler(request, context)

    return answer


def _stream(method: str, handler: Callable[..., Any]) -> Callable[..., Any]:
    async def answer(request: Any, context: grpc.aio.ServicerContext) -> AsyncIterator[Any]:
        async with _followed(method, context):
            async for response in handler(request, context):
                yield response

    return answer


@contextlib.asynccontextmanager
async def _followed(method: str, context: grpc.aio.ServicerContext) -> AsyncIterator[None]:
    call = await _Call.begin(method, context)
    try:
        yield
    except BaseException as error:
        call.error = error
        raise
    finally:
        call.end()


class _Call:
    """One call, from its beginning to its end. gRPC answers each in a task of its own, so nothing needs to be set back."""

    def __init__(self, method: str, parent: tracing.TraceContext | None, context: tracing.TraceContext) -> None:
        self.error: BaseException | None = None
        self._method = method
        self._parent = parent
        self._span = tracing.Span(context, {"rpc.system": "grpc", "rpc.method": method.rpartition("/")[2]})
        self._started_ns = time.time_ns()

    @classmethod
    async def begin(cls, method: str, context: grpc.aio.ServicerContext) -> "_Call":
        """Enter the trace, and tell the caller the request's id."""
        came = {key: str(value) for key, value in context.invocation_metadata() or ()}
        parent = tracing.parse(came.get(tracing.TRACEPARENT, ""), came.get(tracing.TRACESTATE, ""))
        entered = tracing.enter(parent, came.get(tracing.REQUEST_ID, ""))
        await context.send_initial_metadata(
            ((tracing.REQUEST_ID, tracing.request_id()), (tracing.TRACEPARENT, entered.traceparent))
        )
        return cls(method, parent, entered)

    def end(self) -> None:
        """Record it."""
        code = self._code()
        self._span.attributes["rpc.grpc.status_code"] = int(code.value[0])
        self._span.error = "" if code in (grpc.StatusCode.OK, grpc.StatusCode.CANCELLED) else code.name
        tracing.finish(self._method.removeprefix("/"), self._span, self._parent, self._started_ns, kind="server")
        level = logging.DEBUG if self._method in _QUIET else logging.INFO
        seconds = round((time.time_ns() - self._started_ns) / 1e9, 3)
        _log.log(level, "call answered", extra={"method": self._method, "code": code.name, "seconds": seconds})

    def _code(self) -> grpc.StatusCode:
        if self.error is None:
            return grpc.StatusCode.OK
        if isinstance(self.error, ServiceError):
            return code_of(type(self.error))
        # A call that is cancelled ends like this, and so does a stream that nobody reads any more.
        return grpc.StatusCode.INTERNAL if isinstance(self.error, Exception) else grpc.StatusCode.CANCELLED
