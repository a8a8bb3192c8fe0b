"""A gateway for tests of the page: the same service over a real socket, its jobs simulated and its results the uploads."""

import asyncio
import contextlib
import hashlib
import io
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import av
import grpc
from google.protobuf import timestamp_pb2

from services.common import errors
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc.server import Server
from services.gateway.identity.caller import current_caller

_ENDED = frozenset({pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED})
_STAGES = ("decode", "vae_encode", "dit", "vae_decode", "encode")


@dataclass(kw_only=True)
class FakeUpload:
    """Bytes kept so far."""

    filename: str
    size_bytes: int
    data: bytearray = field(default_factory=bytearray)
    complete: bool = False

    def message(self, upload_id: str) -> pb.Upload:
        """As the gateway tells it."""
        return pb.Upload(
            upload_id=upload_id,
            filename=self.filename,
            received_bytes=len(self.data),
            size_bytes=self.size_bytes,
            complete=self.complete,
            sha256=hashlib.sha256(self.data).hexdigest() if self.complete else "",
        )


class FakeGateway(gateway_pb2_grpc.GatewayServicer):
    """Jobs restore ``frames_per_tick`` frames every ``tick_s`` seconds, once ``may_restore`` is set."""

    def __init__(self, *, tick_s: float = 0.02, frames_per_tick: int = 7) -> None:
        self.uploads: dict[str, FakeUpload] = {}
        self.jobs: dict[str, pb.Job] = {}
        self.may_restore = asyncio.Event()
        self.may_restore.set()
        self.write_limit_bytes: int | None = None
        """After so many bytes the next upload stream breaks, once."""
        self.models = [
            pb.Model(
                name="nano", title="Nano", ready=True, colours=[pb.COLOUR_MODE_WAVELET, pb.COLOUR_MODE_NONE], pools=["default"]
            ),
            pb.Model(name="seedvr2-3b", title="SeedVR2 3B", ready=False, pools=["default"]),
            pb.Model(name="seedvr2-7b", title="SeedVR2 7B", installed="fetching"),
        ]
        self.gone = False
        """Answers about jobs as a gateway that can't be reached."""
        self.media_type = "video/mp4"
        self.arrived = asyncio.Event()
        """Set when bytes of an upload have come."""
        self.written = asyncio.Event()
        """Set when an upload stream has ended."""
        self._tick_s = tick_s
        self._frames_per_tick = frames_per_tick
        self._tasks: set[asyncio.Task[None]] = set()

    async def ended(self, job_id: str) -> pb.Job:
        """The job, once nothing is done for it any more."""
        await asyncio.gather(*self._tasks)
        return self.jobs[job_id]

    # ---- uploads ----

    async def CreateUpload(self, request: pb.CreateUploadRequest, context: Any) -> pb.CreateUploadResponse:
        upload = self.uploads.get(request.upload_id)
        if upload and (upload.filename, upload.size_bytes) != (request.filename, request.size_bytes):
            raise errors.AlreadyExists("This upload's id is taken by another file.", field="upload_id")
        if not upload:
            upload = self.uploads[request.upload_id] = FakeUpload(filename=request.filename, size_bytes=request.size_bytes)
        return pb.CreateUploadResponse(upload=upload.message(request.upload_id))

    async def WriteUpload(self, requests: AsyncIterator[pb.WriteUploadRequest], context: Any) -> pb.WriteUploadResponse:
        start = (await anext(requests)).start
        upload = self._upload(start.upload_id)
        if start.offset != len(upload.data):
            raise errors.ChunkOutOfOrder(f"The upload goes on at byte {len(upload.data)}.", field="offset")
        async for request in requests:
            upload.data += request.data
            self.arrived.set()
            if self.write_limit_bytes is not None and len(upload.data) >= self.write_limit_bytes:
                self.write_limit_bytes = None
                raise errors.StoreUnavailable("The store went away.")
            if request.HasField("finish"):
                upload.complete = True
        self.written.set()
        return pb.WriteUploadResponse(upload=upload.message(start.upload_id))

    async def GetUpload(self, request: pb.GetUploadRequest, context: Any) -> pb.GetUploadResponse:
        return pb.GetUploadResponse(upload=self._upload(request.upload_id).message(request.upload_id))

    async def DeleteUpload(self, request: pb.DeleteUploadRequest, context: Any) -> pb.DeleteUploadResponse:
        self._upload(request.upload_id)
        del self.uploads[request.upload_id]
        return pb.DeleteUploadResponse()

    # ---- jobs ----

    async def PlanJob(self, request: pb.PlanJobRequest, context: Any) -> pb.PlanJobResponse:
        return pb.PlanJobResponse(plan=self._plan(request.request))

    async def CreateJob(self, request: pb.CreateJobRequest, context: Any) -> pb.CreateJobResponse:
        self._plan(request.request)
        job = pb.Job(
            job_id=request.job_id,
            state=pb.JOB_STATE_PENDING,
            request=request.request,
            filename=self._upload(request.request.source.upload_id).filename,
            created_at=timestamp_pb2.Timestamp(seconds=1_800_000_000 + len(self.jobs)),
        )
        self.jobs[request.job_id] = job
        self._run(job)
        return pb.CreateJobResponse(job=job)

    async def GetJob(self, request: pb.GetJobRequest, context: Any) -> pb.GetJobResponse:
        return pb.GetJobResponse(job=self._job(request.job_id))

    async def ListJobs(self, request: pb.ListJobsRequest, context: Any) -> pb.ListJobsResponse:
        newest = sorted(self.jobs.values(), key=lambda job: job.created_at.seconds, reverse=True)
        return pb.ListJobsResponse(jobs=newest[: request.page_size or 50])

    async def CancelJob(self, request: pb.CancelJobRequest, context: Any) -> pb.CancelJobResponse:
        job = self._job(request.job_id)
        if job.state in _ENDED:
            raise errors.WrongState("The job has ended already.")
        job.state = pb.JOB_STATE_CANCELLED
        return pb.CancelJobResponse(job=job)

    async def DeleteJob(self, request: pb.DeleteJobRequest, context: Any) -> pb.DeleteJobResponse:
        if self._job(request.job_id).state not in _ENDED:
            raise errors.WrongState("Cancel the job first; a running one can't be deleted.")
        del self.jobs[request.job_id]
        return pb.DeleteJobResponse()

    async def RetryJob(self, request: pb.RetryJobRequest, context: Any) -> pb.RetryJobResponse:
        job = self._job(request.job_id)
        job.state = pb.JOB_STATE_PENDING
        self._run(job)
        return pb.RetryJobResponse(job=job)

    # ---- results ----

    async def DownloadResult(self, request: pb.DownloadResultRequest, context: Any) -> AsyncIterator[pb.DownloadResultResponse]:
        job = self._job(request.job_id)
        if job.state != pb.JOB_STATE_SUCCEEDED:
            raise errors.WrongState("The job has no result yet.")
        for info, data in self._parts(job, request.offset, request.length, job.result.filename):
            yield pb.DownloadResultResponse(info=info, data=data)

    async def DownloadSource(self, request: pb.DownloadSourceRequest, context: Any) -> AsyncIterator[pb.DownloadSourceResponse]:
        job = self._job(request.job_id)
        for info, data in self._parts(job, request.offset, request.length, job.filename):
            yield pb.DownloadSourceResponse(info=info, data=data)

    async def GetPlaylist(self, request: pb.GetPlaylistRequest, context: Any) -> pb.GetPlaylistResponse:
        self._job(request.job_id)
        return pb.GetPlaylistResponse(m3u8="#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\n0.mp4\n#EXT-X-ENDLIST\n", complete=True)

    async def GetFrame(self, request: pb.GetFrameRequest, context: Any) -> pb.GetFrameResponse:
        job = self._job(request.job_id)
        data = bytes(self._upload(job.request.source.upload_id).data)
        return await asyncio.to_thread(_picture, data, request, (job.plan.width, job.plan.height))

    async def GetQualityReport(self, request: pb.GetQualityReportRequest, context: Any) -> pb.GetQualityReportResponse:
        check = pb.QualityCheck(name="frame_count", passed=True, detail="49 frames, as many as the source")
        return pb.GetQualityReportResponse(checks=[check])

    # ---- cluster ----

    async def ListModels(self, request: pb.ListModelsRequest, context: Any) -> pb.ListModelsResponse:
        return pb.ListModelsResponse(models=self.models, default_model="nano")

    async def GetCaller(self, request: pb.GetCallerRequest, context: Any) -> pb.GetCallerResponse:
        caller = current_caller()
        return pb.GetCallerResponse(subject=caller.subject, role=caller.role.value)

    async def GetClusterStatus(self, request: pb.GetClusterStatusRequest, context: Any) -> pb.GetClusterStatusResponse:
        return pb.GetClusterStatusResponse(version="0.1.0", workers=[pb.WorkerSummary(state="ready", models=["nano"])])

    # ---- inside ----

    def _upload(self, upload_id: str) -> FakeUpload:
        if upload_id not in self.uploads:
            raise errors.UploadNotFound("There is no such upload; it may have been removed.")
        return self.uploads[upload_id]

    def _job(self, job_id: str) -> pb.Job:
        if self.gone:
            raise errors.Unavailable("connection refused")
        if job_id not in self.jobs:
            raise errors.JobNotFound(f"There is no job {job_id}; it may have been deleted.")
        return self.jobs[job_id]

    def _plan(self, request: pb.JobRequest) -> pb.PlanSummary:
        upload = self._upload(request.source.upload_id)
        try:
            with av.open(io.BytesIO(bytes(upload.data))) as container:
                stream = container.streams.video[0]
                width, height, frames = stream.width, stream.height, stream.frames
        except (av.FFmpegError, IndexError) as error:
            raise errors.InvalidVideo(f"{upload.filename} can't be read: it is not a video.") from error
        scale = request.target.scale or 1
        plan = pb.PlanSummary(
            model=request.model, source_width=width, source_height=height, frames=frames, spans=1, segments=4, container="mp4",
            width=int(width * scale), height=int(height * scale),
        )  # fmt: skip
        plan.duration.FromMilliseconds(round(frames * 1000 / 24))
        plan.predicted_time.FromMilliseconds(28_000)
        return plan

    def _run(self, job: pb.Job) -> None:
        task = asyncio.create_task(self._restore(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _restore(self, job: pb.Job) -> None:
        job.plan.CopyFrom(self._plan(job.request))
        total, done = job.plan.frames, 0
        job.state = pb.JOB_STATE_RESTORING
        job.progress.CopyFrom(pb.Progress(stage="dit", frames_total=total, segments_total=4))
        while done < total:
            await self.may_restore.wait()
            await asyncio.sleep(self._tick_s)
            if job.state in _ENDED:
                return
            done = min(total, done + self._frames_per_tick)
            self._advance(job.progress, done, total)
        self._succeed(job)

    def _advance(self, progress: pb.Progress, done: int, total: int) -> None:
        progress.frames_done, progress.segments_done = done, 4 * done // total
        progress.stage = _STAGES[done % len(_STAGES)]
        progress.frames_per_second = self._frames_per_tick / self._tick_s
        progress.time_left.FromMilliseconds(round(1000 * (total - done) / progress.frames_per_second))
        progress.stage_seconds["dit"] = done * self._tick_s

    def _succeed(self, job: pb.Job) -> None:
        data = bytes(self._upload(job.request.source.upload_id).data)
        job.result.CopyFrom(
            pb.Result(
                filename=f"restored-{job.filename}", media_type="video/mp4", size_bytes=len(data),
                sha256=hashlib.sha256(data).hexdigest(), width=job.plan.width, height=job.plan.height, frames=job.plan.frames,
                duration=job.plan.duration,
            )
        )  # fmt: skip
        job.result.elapsed.FromMilliseconds(4200)
        job.state = pb.JOB_STATE_SUCCEEDED

    def _parts(self, job: pb.Job, offset: int, length: int, filename: str) -> "list[tuple[pb.ObjectInfo | None, bytes]]":
        data = bytes(self._upload(job.request.source.upload_id).data)
        if offset >= len(data):
            raise errors.RangeOutOfBounds(f"The file has {len(data)} bytes.")
        sha256 = hashlib.sha256(data).hexdigest()
        info = pb.ObjectInfo(filename=filename, media_type=self.media_type, size_bytes=len(data), sha256=sha256)
        part = data[offset : offset + length if length else len(data)]
        pieces = [part[i : i + 65536] for i in range(0, len(part), 65536)]
        return [(info if i == 0 else None, piece) for i, piece in enumerate(pieces)]


@contextlib.asynccontextmanager
async def served(gateway: FakeGateway, *interceptors: grpc.aio.ServerInterceptor) -> AsyncIterator[str]:
    """The address of ``gateway`` while it is served."""
    server = Server("127.0.0.1:0", interceptors=interceptors)
    server.add("seedvr2.v1.Gateway", lambda it: gateway_pb2_grpc.add_GatewayServicer_to_server(gateway, it))
    port = await server.start()
    await server.set_serving(True)
    try:
        yield f"127.0.0.1:{port}"
    finally:
        await server.stop(0)


def _picture(data: bytes, request: pb.GetFrameRequest, size: tuple[int, int]) -> pb.GetFrameResponse:
    with av.open(io.BytesIO(data)) as container:
        for number, frame in enumerate(container.decode(video=0)):
            if number == request.frame:
                image = frame.to_image()
                if request.of == pb.FRAME_OF_SOURCE:
                    image = image.resize((image.width // 5, image.height // 5))
                image = image.resize(size)
                written = io.BytesIO()
                image.save(written, "PNG")
                return pb.GetFrameResponse(image=written.getvalue(), width=size[0], height=size[1])
    raise errors.RangeOutOfBounds(f"There is no frame {request.frame}.")
