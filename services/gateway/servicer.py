"""The Gateway RPCs: decode, call the use case, encode."""

import asyncio
import base64
import contextlib
import functools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any

from services.common.errors import InvalidInput, InvalidOption, ServiceError
from services.common.metrics import GatewayMetrics
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc.status import code_of
from services.gateway import codec
from services.gateway.book import JobBook
from services.gateway.catalogue import Catalogue
from services.gateway.control import JobControl
from services.gateway.identity.caller import Role, current_caller, require_admin
from services.gateway.identity.quotas import Quotas
from services.gateway.jobs import Job
from services.gateway.keys import Ref
from services.gateway.memory import listed_by
from services.gateway.ports import Workers
from services.gateway.progress import Progress
from services.gateway.results import Download, Results
from services.gateway.uploads import Finish, Uploads

_PAGE, _LONGEST_PAGE = 50, 200


@contextlib.contextmanager
def _counted(metrics: GatewayMetrics, method: str) -> Iterator[None]:
    code = "OK"
    try:
        yield
    except ServiceError as error:
        code = code_of(type(error)).name
        raise
    except (asyncio.CancelledError, GeneratorExit):
        code = "CANCELLED"
        raise
    except Exception:
        code = "INTERNAL"
        raise
    finally:
        metrics.requests.labels(method, code).inc()


def _unary(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def answer(self: "GatewayServicer", request: Any, context: Any) -> Any:
        with _counted(self.metrics, method.__name__):
            return await method(self, request)

    return answer


def _stream(method: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(method)
    async def answer(self: "GatewayServicer", request: Any, context: Any) -> AsyncGenerator[Any, None]:
        with _counted(self.metrics, method.__name__):
            async with contextlib.aclosing(method(self, request)) as responses:
                async for response in responses:
                    yield response

    return answer


class GatewayServicer(gateway_pb2_grpc.GatewayServicer):
    """See gateway.proto for what each call does."""

    def __init__(
        self, *, uploads: Uploads, book: JobBook, control: JobControl, results: Results, catalogue: Catalogue,
        workers: Workers, quotas: Quotas, metrics: GatewayMetrics, version: str,
    ) -> None:  # fmt: skip
        self._uploads = uploads
        self._book = book
        self._control = control
        self._results = results
        self._catalogue = catalogue
        self._workers = workers
        self._quotas = quotas
        self._version = version
        self.metrics = metrics

    # ---- uploads ----

    @_unary
    async def CreateUpload(self, request: pb.CreateUploadRequest) -> pb.CreateUploadResponse:
        upload = await self._uploads.create(_mine(request.upload_id), request.filename, request.size_bytes)
        return pb.CreateUploadResponse(upload=codec.encode_upload(upload))

    @_unary
    async def WriteUpload(self, requests: AsyncIterator[pb.WriteUploadRequest]) -> pb.WriteUploadResponse:
        messages = aiter(requests)
        first = await anext(messages, None)
        if first is None or first.WhichOneof("message") != "start":
            raise InvalidInput("The first message must name the upload and the offset.", field="start")
        upload = await self._uploads.write(_mine(first.start.upload_id), first.start.offset, _upload_messages(messages))
        return pb.WriteUploadResponse(upload=codec.encode_upload(upload))

    @_unary
    async def GetUpload(self, request: pb.GetUploadRequest) -> pb.GetUploadResponse:
        return pb.GetUploadResponse(upload=codec.encode_upload(await self._uploads.get(_mine(request.upload_id))))

    @_unary
    async def DeleteUpload(self, request: pb.DeleteUploadRequest) -> pb.DeleteUploadResponse:
        await self._uploads.delete(_mine(request.upload_id))
        return pb.DeleteUploadResponse()

    # ---- jobs ----

    @_unary
    async def PlanJob(self, request: pb.PlanJobRequest) -> pb.PlanJobResponse:
        summary = await self._control.plan(current_caller().owner, codec.decode_request(request.request))
        return pb.PlanJobResponse(plan=codec.encode_plan(summary))

    @_unary
    async def CreateJob(self, request: pb.CreateJobRequest) -> pb.CreateJobResponse:
        job = await self._control.create(_mine(request.job_id), codec.decode_request(request.request))
        return pb.CreateJobResponse(job=self._job(job))

    @_unary
    async def GetJob(self, request: pb.GetJobRequest) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=self._job(await self._book.look(_mine(request.job_id))))

    @_unary
    async def ListJobs(self, request: pb.ListJobsRequest) -> pb.ListJobsResponse:
        if not 0 <= request.page_size <= _LONGEST_PAGE:
            raise InvalidOption(f"The page size is {request.page_size}; give 1 to {_LONGEST_PAGE}, or 0.", field="page_size")
        if request.all_owners:
            require_admin("list the jobs of others")
        owner = None if request.all_owners else current_caller().owner
        size = request.page_size or _PAGE
        after = _decode_token(request.page_token) if request.page_token else None
        states = codec.decode_states(list(request.states))
        jobs = await self._book.page(owner, states, after=after, size=size + 1)
        token = _encode_token(jobs[size - 1]) if len(jobs) > size else ""
        return pb.ListJobsResponse(jobs=[self._job(job) for job in jobs[:size]], next_page_token=token)

    @_stream
    async def WatchJob(self, request: pb.WatchJobRequest) -> AsyncGenerator[pb.WatchJobResponse, None]:
        async with contextlib.aclosing(self._book.watch(_mine(request.job_id))) as changes:
            async for job, progress in changes:
                yield pb.WatchJobResponse(job=_encoded(job, progress))

    @_unary
    async def CancelJob(self, request: pb.CancelJobRequest) -> pb.CancelJobResponse:
        return pb.CancelJobResponse(job=self._job(await self._control.cancel(_mine(request.job_id))))

    @_unary
    async def DeleteJob(self, request: pb.DeleteJobRequest) -> pb.DeleteJobResponse:
        await self._control.delete(_mine(request.job_id))
        return pb.DeleteJobResponse()

    @_unary
    async def RetryJob(self, request: pb.RetryJobRequest) -> pb.RetryJobResponse:
        return pb.RetryJobResponse(job=self._job(await self._control.retry(_mine(request.job_id))))

    # ---- results ----

    @_stream
    async def DownloadResult(self, request: pb.DownloadResultRequest) -> AsyncGenerator[pb.DownloadResultResponse, None]:
        if request.HasField("segment"):
            download = await self._results.segment(_mine(request.job_id), request.segment, request.offset, request.length)
        else:
            download = await self._results.result(_mine(request.job_id), request.offset, request.length)
        async with contextlib.aclosing(_parts(download)) as parts:
            async for info, data in parts:
                yield pb.DownloadResultResponse(info=info, data=data)

    @_stream
    async def DownloadSource(self, request: pb.DownloadSourceRequest) -> AsyncGenerator[pb.DownloadSourceResponse, None]:
        download = await self._results.source(_mine(request.job_id), request.offset, request.length)
        async with contextlib.aclosing(_parts(download)) as parts:
            async for info, data in parts:
                yield pb.DownloadSourceResponse(info=info, data=data)

    @_unary
    async def GetPlaylist(self, request: pb.GetPlaylistRequest) -> pb.GetPlaylistResponse:
        found = await self._results.playlist(_mine(request.job_id))
        return pb.GetPlaylistResponse(m3u8=found.m3u8, complete=found.complete, segments=found.segments)

    @_unary
    async def GetFrame(self, request: pb.GetFrameRequest) -> pb.GetFrameResponse:
        if request.of not in (pb.FRAME_OF_SOURCE, pb.FRAME_OF_RESULT):
            raise InvalidOption("Say of which the frame is: FRAME_OF_SOURCE or FRAME_OF_RESULT.", field="of")
        picture = await self._results.picture(
            _mine(request.job_id), of_result=request.of == pb.FRAME_OF_RESULT, frame=request.frame, max_side=request.max_side
        )
        return pb.GetFrameResponse(image=picture.data, width=picture.width, height=picture.height)

    @_unary
    async def GetQualityReport(self, request: pb.GetQualityReportRequest) -> pb.GetQualityReportResponse:
        checks = await self._results.report(_mine(request.job_id))
        return pb.GetQualityReportResponse(checks=[codec.encode_check(check) for check in checks])

    # ---- callers ----

    @_unary
    async def GetCaller(self, request: pb.GetCallerRequest) -> pb.GetCallerResponse:
        caller = current_caller()
        by = caller.by.subject if caller.by else ""
        return pb.GetCallerResponse(subject=caller.subject, role=caller.role.value, by_subject=by)

    @_unary
    async def GetUsage(self, request: pb.GetUsageRequest) -> pb.GetUsageResponse:
        account = await self._quotas.account(request.month, all_owners=request.all_owners)
        return pb.GetUsageResponse(
            month=account.month,
            usages=[codec.encode_usage(usage) for usage in account.usages],
            quota=codec.encode_quota(account.quota),
            active_jobs=account.active_jobs,
        )

    # ---- cluster ----

    @_unary
    async def ListModels(self, request: pb.ListModelsRequest) -> pb.ListModelsResponse:
        models = codec.encode_models(self._catalogue.models(), self._catalogue.installed())
        return pb.ListModelsResponse(models=models, default_model=self._catalogue.default_model())

    @_unary
    async def GetClusterStatus(self, request: pb.GetClusterStatusRequest) -> pb.GetClusterStatusResponse:
        active = self._book.active()
        waiting = sum(self._book.progress(job.ref).stage in ("", "waiting") for job in active)
        return pb.GetClusterStatusResponse(
            version=self._version,
            workers=[codec.encode_worker(view) for view in self._workers.views()],
            jobs_running=len(active) - waiting,
            jobs_waiting=waiting,
        )

    def _job(self, job: Job) -> pb.Job:
        return _encoded(job, self._book.progress(job.ref))


def _encoded(job: Job, progress: Progress) -> pb.Job:
    """A job as whoever calls may see it."""
    message = codec.encode_job(job, progress)
    if current_caller().role is Role.ADMIN:
        message.subject, message.owner = job.subject, job.owner
    return message


def _mine(name: str) -> Ref:
    """A job, or an upload, of whoever calls."""
    return Ref(current_caller().owner, name)


async def _upload_messages(messages: AsyncIterator[pb.WriteUploadRequest]) -> AsyncGenerator[bytes | Finish, None]:
    async for message in messages:
        kind = message.WhichOneof("message")
        if kind == "data":
            yield message.data
        elif kind == "finish":
            yield Finish(sha256=message.finish.sha256)
        else:
            raise InvalidInput("After the first message of an upload stream come data and at last finish.", field="start")


async def _parts(download: Download) -> AsyncGenerator[tuple[pb.ObjectInfo | None, bytes], None]:
    info: pb.ObjectInfo | None = codec.encode_object(download)
    async with contextlib.aclosing(download.pieces):
        async for data in download.pieces:
            yield info, data
            info = None
    if info is not None:
        yield info, b""


def _encode_token(job: Job) -> str:
    return base64.urlsafe_b64encode(" ".join(map(str, listed_by(job))).encode()).decode()


def _decode_token(token: str) -> tuple[float, str, str]:
    try:
        created_at, job_id, owner = base64.urlsafe_b64decode(token.encode()).decode().split(" ")
        return float(created_at), job_id, owner
    except ValueError as error:
        raise InvalidOption("The page token is not one that this service gave; begin without one.", field="page_token") from error
