"""A gateway with one upload and one job in memory, on a real server: as much as the client's tests need."""

import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator
from typing import Any

from services.common.errors import ChunkOutOfOrder, ServiceError
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc.server import Server


class FakeGateway(gateway_pb2_grpc.GatewayServicer):  # type: ignore[misc]
    """Raises ``errors`` in turn before it answers; remembers ``calls`` (method name, request)."""

    def __init__(self) -> None:
        self.errors: list[ServiceError] = []
        self.refusal: ServiceError | None = None
        """What CreateJob answers, each time."""
        self.calls: list[tuple[str, Any]] = []
        self.metadata: list[tuple[str, str]] = []
        """Of the last ListJobs."""
        self.usage = pb.GetUsageResponse()
        self.upload = pb.Upload()
        self.kept = bytearray()
        self.offsets: list[int] = []
        self.result = b""
        self.result_sha256 = ""
        self.job = pb.Job(job_id="job", state=pb.JOB_STATE_RESTORING)
        self.changed = asyncio.Event()
        self.watching = asyncio.Event()
        self.left = asyncio.Event()
        self.silent = False
        self.jobs = 0

    def _note(self, request: Any) -> None:
        self.calls.append((type(request).__name__.removesuffix("Request"), request))
        if self.errors:
            raise self.errors.pop(0)

    async def CreateUpload(self, request: pb.CreateUploadRequest, context: Any) -> pb.CreateUploadResponse:
        self._note(request)
        if not self.upload.upload_id:
            self.upload = pb.Upload(upload_id=request.upload_id, filename=request.filename, size_bytes=request.size_bytes)
        return pb.CreateUploadResponse(upload=self.upload)

    async def GetUpload(self, request: pb.GetUploadRequest, context: Any) -> pb.GetUploadResponse:
        self._note(request)
        return pb.GetUploadResponse(upload=self.upload)

    async def DeleteUpload(self, request: pb.DeleteUploadRequest, context: Any) -> pb.DeleteUploadResponse:
        self._note(request)
        return pb.DeleteUploadResponse()

    async def WriteUpload(self, requests: AsyncIterator[pb.WriteUploadRequest], context: Any) -> pb.WriteUploadResponse:
        async for request in requests:
            match request.WhichOneof("message"):
                case "start":
                    self._start(request.start.offset)
                case "data":
                    self.kept += request.data
                    self.upload.received_bytes = len(self.kept)
                case "finish":
                    self.upload.complete = True
                    self.upload.sha256 = hashlib.sha256(self.kept).hexdigest()
        return pb.WriteUploadResponse(upload=self.upload)

    def _start(self, offset: int) -> None:
        self.offsets.append(offset)
        if self.errors:
            raise self.errors.pop(0)
        self.upload.received_bytes = len(self.kept)
        if offset != len(self.kept):
            raise ChunkOutOfOrder(f"{len(self.kept)} bytes are kept.")

    async def PlanJob(self, request: pb.PlanJobRequest, context: Any) -> pb.PlanJobResponse:
        self._note(request)
        plan = pb.PlanSummary(source_width=320, source_height=180, width=640, height=360, frames=4, spans=1, model="nano")
        plan.container = "mp4"
        return pb.PlanJobResponse(plan=plan)

    async def CreateJob(self, request: pb.CreateJobRequest, context: Any) -> pb.CreateJobResponse:
        self._note(request)
        if self.refusal is not None:
            raise self.refusal
        self.job.job_id = request.job_id
        self.job.request.CopyFrom(request.request)
        return pb.CreateJobResponse(job=self.job)

    async def GetUsage(self, request: pb.GetUsageRequest, context: Any) -> pb.GetUsageResponse:
        self._note(request)
        return self.usage

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        self._note(request)
        self.metadata = [(str(name), str(value)) for name, value in context.invocation_metadata()]
        first = int(request.page_token or 0)
        end = min(first + min(request.page_size, 2), self.jobs)
        jobs = [pb.Job(job_id=f"job-{number}", state=self.job.state) for number in range(first, end)]
        return pb.ListJobsResponse(jobs=jobs, next_page_token=str(end) if end < self.jobs else "")

    async def RetryJob(self, request: pb.RetryJobRequest, context: Any) -> pb.RetryJobResponse:
        self._note(request)
        return pb.RetryJobResponse(job=self.job)

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        self._note(request)
        return pb.GetJobResponse(job=self.job)

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        self._note(request)
        return pb.CancelJobResponse(job=self.job)

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Any) -> pb.DeleteJobResponse:
        self._note(request)
        return pb.DeleteJobResponse()

    async def WatchJob(self, request: pb.WatchJobRequest, context: Any) -> AsyncIterator[pb.WatchJobResponse]:
        self._note(request)
        try:
            yield pb.WatchJobResponse(job=self.job)
            self.watching.set()
            await self.changed.wait()
            yield pb.WatchJobResponse(job=self.job)
        finally:
            self.left.set()

    async def DownloadResult(self, request: pb.DownloadResultRequest, context: Any) -> AsyncIterator[pb.DownloadResultResponse]:
        self._note(request)
        end = request.offset + request.length if request.length else len(self.result)
        info = pb.ObjectInfo(filename="a.mp4", size_bytes=len(self.result), sha256=self.result_sha256)
        yield pb.DownloadResultResponse(info=info)
        for start in range(request.offset, end, 100_000):
            yield pb.DownloadResultResponse(data=self.result[start : min(start + 100_000, end)])

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        self._note(request)
        if self.silent:
            await self.changed.wait()
        nano = pb.Model(name="nano", title="SeedVR2 nano", ready=True, parameters=6_200_000, pools=["local"])
        return pb.ListModelsResponse(models=[nano], default_model="nano")


def give_result(gateway: FakeGateway, size_bytes: int) -> bytes:
    """Random bytes as the result."""
    gateway.result = os.urandom(size_bytes)
    gateway.result_sha256 = hashlib.sha256(gateway.result).hexdigest()
    return gateway.result


@contextlib.asynccontextmanager
async def serving(gateway: FakeGateway) -> AsyncIterator[int]:
    """A server with ``gateway`` on a free port."""
    server = Server("127.0.0.1:0")
    server.add("seedvr2.v1.Gateway", lambda it: gateway_pb2_grpc.add_GatewayServicer_to_server(gateway, it))
    port = await server.start()
    try:
        yield port
    finally:
        await server.stop(0)
