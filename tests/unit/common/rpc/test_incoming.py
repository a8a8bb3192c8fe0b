"""Calls over a real connection."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from services.common import tracing
from services.common.errors import JobNotFound
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc.server import Server, open_channel
from tests.unit.common.test_tracing import PARENT, Kept


class Gateway(gateway_pb2_grpc.GatewayServicer):
    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        if request.job_id == "none":
            raise JobNotFound("There is no job none.")
        started = asyncio.create_task(self._ids())
        return pb.GetJobResponse(job=pb.Job(job_id=await started))

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.WatchJobResponse]:
        yield pb.WatchJobResponse(job=pb.Job(job_id=await self._ids()))

    async def _ids(self) -> str:
        return f"{tracing.request_id()} {tracing.trace_ids()['trace_id']}"


@contextlib.asynccontextmanager
async def connected() -> AsyncIterator[Any]:
    server = Server("127.0.0.1:0")
    server.add("seedvr2.v1.Gateway", lambda s: gateway_pb2_grpc.add_GatewayServicer_to_server(Gateway(), s))
    port = await server.start()
    try:
        async with open_channel(f"127.0.0.1:{port}") as channel:
            yield gateway_pb2_grpc.GatewayStub(channel)
    finally:
        await server.stop(0)


async def test_a_call_is_answered_for_its_request_and_in_its_trace():
    recorder = Kept()
    with tracing.start_recording(recorder):
        async with connected() as stub:
            call = stub.GetJob(pb.GetJobRequest(), metadata=(("x-request-id", "req-1"), ("traceparent", PARENT)))
            assert (await call).job.job_id == "req-1 0af7651916cd43dd8448eb211c80319c"
            answered = dict(await call.initial_metadata())
    (span,) = recorder.spans
    assert answered["x-request-id"] == "req-1"
    assert answered["traceparent"] == span.context.traceparent
    assert (span.name, span.kind, span.parent_id, span.error) == ("seedvr2.v1.Gateway/GetJob", "server", "b7ad6b7169203331", "")
    assert span.attributes["rpc.grpc.status_code"] == 0


async def test_a_stream_is_too():
    async with connected() as stub:
        call = stub.WatchJob(pb.WatchJobRequest(), metadata=(("x-request-id", "req-1"), ("traceparent", PARENT)))
        assert [m.job.job_id async for m in call] == ["req-1 0af7651916cd43dd8448eb211c80319c"]


async def test_a_call_without_ids_gets_some():
    async with connected() as stub:
        call = stub.GetJob(pb.GetJobRequest())
        request_id, trace_id = (await call).job.job_id.split()
        assert (len(request_id), len(trace_id)) == (16, 32)
        assert dict(await call.initial_metadata())["x-request-id"] == request_id


async def test_a_refusal_carries_the_request_id_too_and_is_told(caplog: pytest.LogCaptureFixture):
    recorder = Kept()
    with tracing.start_recording(recorder), caplog.at_level(logging.INFO):
        async with connected() as stub:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await stub.GetJob(pb.GetJobRequest(job_id="none"), metadata=(("x-request-id", "req-2"),))
    assert dict(caught.value.initial_metadata())["x-request-id"] == "req-2"
    assert caught.value.details() == "There is no job none."
    assert recorder.spans[0].error == "NOT_FOUND"
    line = next(record for record in caplog.records if record.message == "call answered")
    assert (line.code, line.method) == ("NOT_FOUND", "/seedvr2.v1.Gateway/GetJob")
