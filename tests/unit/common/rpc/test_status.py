"""Errors over a real connection: what a handler raises arrives at the client as the same class."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
from google.rpc import error_details_pb2

from services.common.errors import (
    InternalError,
    InvalidOption,
    JobNotFound,
    QueueFull,
    QuotaExceeded,
    ServiceError,
    SettingsError,
    WorkerUnavailable,
    all_errors,
)
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc.ending import CallEnding
from services.common.rpc.server import Server, open_channel
from services.common.rpc.status import canonical_code, code_of, error_of, status_of

CLASSES = sorted(all_errors().values(), key=lambda cls: cls.__name__)


class Failing(gateway_pb2_grpc.GatewayServicer):
    """Raises what it is told to, in each kind of call."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.cancelled = asyncio.Event()

    async def GetJob(self, request: pb.GetJobRequest, context: grpc.aio.ServicerContext) -> pb.GetJobResponse:
        if self.error is not None:
            raise self.error
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return pb.GetJobResponse()

    async def WatchJob(
        self, request: pb.WatchJobRequest, context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.WatchJobResponse]:
        yield pb.WatchJobResponse(job=pb.Job(job_id="first"))
        if self.error is not None:
            raise self.error

    async def WriteUpload(
        self, requests: AsyncIterator[pb.WriteUploadRequest], context: grpc.aio.ServicerContext
    ) -> pb.WriteUploadResponse:
        async for _ in requests:
            if self.error is not None:
                raise self.error
        return pb.WriteUploadResponse()


class Running:
    def __init__(self, servicer: Failing) -> None:
        self.server = Server("127.0.0.1:0")
        self.server.add("seedvr2.v1.Gateway", lambda s: gateway_pb2_grpc.add_GatewayServicer_to_server(servicer, s))

    async def __aenter__(self) -> gateway_pb2_grpc.GatewayStub:
        self.channel = open_channel(f"127.0.0.1:{await self.server.start()}")
        return gateway_pb2_grpc.GatewayStub(self.channel)

    async def __aexit__(self, *_: object) -> None:
        await self.channel.close()
        await self.server.stop(0)


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_every_error_has_a_code_and_only_our_own_faults_are_internal(cls: type[ServiceError]):
    assert (code_of(cls) is grpc.StatusCode.INTERNAL) == (cls in (ServiceError, InternalError))
    assert canonical_code(cls) == code_of(cls).value[0]


@pytest.mark.parametrize("cls", [c for c in CLASSES if c not in (ServiceError, InternalError)], ids=lambda cls: cls.__name__)
async def test_an_error_arrives_as_the_same_class_with_its_details(cls: type[ServiceError]):
    async with Running(Failing(cls("a sentence", field="request.x", retry_after_s=1.5))) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetJob(pb.GetJobRequest())
    error = error_of(caught.value)
    assert (type(error), error.message, error.field, error.retry_after_s) == (cls, "a sentence", "request.x", 1.5)


@pytest.mark.parametrize("error", [RuntimeError("secret path"), ServiceError("secret path"), InternalError("secret path")])
async def test_our_own_faults_are_logged_and_never_shown(error: Exception, caplog: pytest.LogCaptureFixture):
    async with Running(Failing(error)) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.GetJob(pb.GetJobRequest())
    assert caught.value.code() is grpc.StatusCode.INTERNAL
    assert "secret" not in (caught.value.details() or "")
    assert "secret path" in caplog.text


async def test_an_error_in_the_middle_of_a_stream_comes_after_what_was_sent():
    async with Running(Failing(QueueFull("full", retry_after_s=3))) as stub:
        got, call = [], stub.WatchJob(pb.WatchJobRequest())
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            async for response in call:
                got.append(response.job.job_id)
    assert got == ["first"]
    assert type(error_of(caught.value)) is QueueFull


async def test_an_error_while_the_client_streams_ends_the_call():
    async with Running(Failing(InvalidOption("no", field="offset"))) as stub:
        call = stub.WriteUpload()
        ending = CallEnding(call)
        with pytest.raises((grpc.aio.AioRpcError, asyncio.InvalidStateError)):
            while True:
                await call.write(pb.WriteUploadRequest(data=bytes(1000)))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert error_of(await ending.failure(caught.value)).field == "offset"


async def test_cancelling_a_call_cancels_its_handler():
    servicer = Failing(None)
    async with Running(servicer) as stub:
        call = stub.GetJob(pb.GetJobRequest())
        await asyncio.sleep(0.1)
        call.cancel()
        await asyncio.wait_for(servicer.cancelled.wait(), 5)


async def test_a_server_that_is_not_there_is_unavailable():
    async with open_channel("127.0.0.1:1") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await gateway_pb2_grpc.GatewayStub(channel).GetJob(pb.GetJobRequest())
    error = error_of(caught.value)
    assert error.retryable
    assert code_of(type(error)) is grpc.StatusCode.UNAVAILABLE
    assert code_of(WorkerUnavailable) is grpc.StatusCode.UNAVAILABLE
    assert code_of(SettingsError) is grpc.StatusCode.FAILED_PRECONDITION


def test_what_is_missing_is_named_by_its_kind():
    details = {d.TypeName(): d for d in status_of(JobNotFound("There is no job a.")).details}
    resource = error_details_pb2.ResourceInfo()
    details["google.rpc.ResourceInfo"].Unpack(resource)
    assert (resource.resource_type, resource.description) == ("job", "There is no job a.")


def test_a_quota_travels_as_one():
    status = status_of(QuotaExceeded("You have used it up.", field="active_jobs"))
    details = {detail.type_url.rpartition(".")[2] for detail in status.details}
    assert details == {"ErrorInfo", "QuotaFailure"}
