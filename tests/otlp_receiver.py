"""A collector that takes spans by OTLP over gRPC, with the protocol's own messages, and keeps them."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as pb
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc
from opentelemetry.proto.trace.v1.trace_pb2 import Span


class Receiver(trace_service_pb2_grpc.TraceServiceServicer):
    """The collector."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Span]] = []
        """With the name of the service that sent each."""
        self._arrived = asyncio.Condition()

    async def Export(self, request: pb.ExportTraceServiceRequest, context: Any) -> pb.ExportTraceServiceResponse:
        async with self._arrived:
            for group in request.resource_spans:
                names = {a.key: a.value.string_value for a in group.resource.attributes}
                self.spans += [(names["service.name"], span) for scope in group.scope_spans for span in scope.spans]
            self._arrived.notify_all()
        return pb.ExportTraceServiceResponse()

    async def until(self, condition: Callable[[list[tuple[str, Span]]], bool], timeout_s: float = 30) -> None:
        async with asyncio.timeout(timeout_s), self._arrived:
            await self._arrived.wait_for(lambda: condition(self.spans))

    def named(self, name: str) -> list[Span]:
        return [span for _, span in self.spans if span.name == name]


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[tuple[Receiver, str]]:
    """A receiver and its endpoint."""
    server, receiver = grpc.aio.server(), Receiver()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(receiver, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield receiver, f"http://127.0.0.1:{port}"
    finally:
        await server.stop(0)
