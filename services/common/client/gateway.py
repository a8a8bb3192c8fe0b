"""The client in one event loop; ``sync.py`` is the same without one.

Messages are those of ``gateway.proto``; failures arrive as the classes of ``errors.py``. Every unary call has a deadline and
is repeated within it where that is safe; streams go on where they broke off, so a gateway that restarts costs a pause only.
"""

import asyncio
import contextlib
import secrets
import time
import types
from collections.abc import AsyncGenerator, AsyncIterable, Iterable
from pathlib import Path
from typing import Any, Self

import grpc

from services.common.client.calls import STREAM_S, Calls, Reading, passing
from services.common.client.download import download
from services.common.errors import AlreadyExists, ChunkOutOfOrder, DeadlinePassed, QueueFull, ServiceError, WrongState
from services.common.login import Login
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.rpc.ending import CallEnding
from services.common.rpc.server import PIECE_BYTES
from services.common.rpc.tls import ChannelTls
from services.common.transfer import OnProgress, file_pieces, measure_file

ENDED_STATES = frozenset({pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED})
"""States that a job doesn't leave by itself."""

_QUEUE_PAUSE_S = 5.0


class GatewayClient:
    """A connection to a gateway, opened at the first call; use it in one event loop.

    Every method raises the ServiceError that the gateway raised, Unavailable where none can be reached, DeadlinePassed where
    none answers in time.
    """

    def __init__(
        self, address: str, *, timeout_s: float = 30.0, patience_s: float = 120.0, login: Login | None = None,
        tls: ChannelTls | None = None,
    ) -> None:  # fmt: skip
        """``address``: host:port, or grpcs://host:port for TLS with what ``tls`` says. ``timeout_s`` limits a unary call with its
        repetitions, ``patience_s`` the time that a stream is taken up again while nothing arrives. ``login`` is asked before
        each call who makes it; None: the gateway lets everybody in."""
        self._calls = Calls(address, timeout_s=timeout_s, patience_s=patience_s, login=login, tls=tls)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End open calls and the connection."""
        await self._calls.aclose()

    async def wait_connected(self, timeout_s: float) -> None:
        """Return once a gateway accepts connections.

        Raises:
            Unavailable: none does within ``timeout_s``. SettingsError: a file of TLS can't be used.
        """
        try:
            await asyncio.wait_for(self._calls.channel.channel_ready(), timeout_s)
        except TimeoutError:
            # The channel doesn't say what is wrong, a call does.
            try:
                await self._calls.stub.GetClusterStatus(pb.GetClusterStatusRequest(), timeout=timeout_s)
            except grpc.RpcError as failure:
                raise self._calls.error(failure) from failure

    # ---- uploads ----

    async def create_upload(self, filename: str, size_bytes: int = 0, upload_id: str = "") -> pb.Upload:
        """Begin an upload; the id is generated when empty. A known id with equal values returns the upload that exists."""
        request = pb.CreateUploadRequest(upload_id=upload_id or secrets.token_hex(8), filename=filename, size_bytes=size_bytes)
        return (await self._calls.call(pb.CreateUploadResponse, request)).upload

    async def write_upload(
        self, upload_id: str, offset: int, pieces: AsyncIterable[bytes], *, finish: bool, sha256: str = ""
    ) -> pb.Upload:
        """Send bytes from ``offset`` on in one stream; ``finish`` completes the upload, ``sha256`` is then checked.

        A stream that breaks raises; :meth:`get_upload` tells from where to go on.
        """
        call = self._calls.stub.WriteUpload(metadata=self._calls.metadata(), timeout=STREAM_S)
        ending = CallEnding(call)
        try:
            # InvalidStateError: the gateway has answered already; awaiting the call says what.
            with contextlib.suppress(asyncio.InvalidStateError):
                async with contextlib.aclosing(_upload_messages(upload_id, offset, pieces, finish, sha256)) as messages:
                    async for message in messages:
                        await call.write(message)
                await call.done_writing()
            answer: pb.WriteUploadResponse = await call
        except grpc.aio.AioRpcError as raised:
            raise self._calls.error(await ending.failure(raised)) from raised
        finally:
            call.cancel()
        return answer.upload

    async def get_upload(self, upload_id: str) -> pb.Upload:
        """An upload as it is now."""
        return (await self._calls.call(pb.GetUploadResponse, pb.GetUploadRequest(upload_id=upload_id))).upload

    async def delete_upload(self, upload_id: str) -> None:
        """Remove an upload."""
        await self._calls.call(pb.DeleteUploadResponse, pb.DeleteUploadRequest(upload_id=upload_id), again=False)

    async def upload_file(self, path: Path, *, upload_id: str = "", on_progress: OnProgress | None = None) -> pb.Upload:
        """Upload a file; goes on where a broken stream, or an earlier try with this ``upload_id``, stopped.

        Raises:
            AlreadyExists: another file was uploaded under this id.
            OSError: the file can't be read.
        """
        size_bytes, sha256 = await asyncio.to_thread(measure_file, path)
        upload = await self.create_upload(path.name, size_bytes, upload_id)
        patience = self._calls.patience()
        while not upload.complete:
            kept = upload.received_bytes
            try:
                async with contextlib.aclosing(file_pieces(path, kept, size_bytes, on_progress)) as pieces:
                    upload = await self.write_upload(upload.upload_id, kept, pieces, finish=True, sha256=sha256)
            except ServiceError as error:
                # Out of order: the gateway was still storing what an earlier, broken stream had brought.
                if not (passing(error) or isinstance(error, ChunkOutOfOrder | DeadlinePassed)):
                    raise
                await patience.wait(error)
                upload = await self.get_upload(upload.upload_id)
            if upload.received_bytes > kept:
                patience.renew()
        if upload.sha256 != sha256:
            raise AlreadyExists(f"The upload {upload.upload_id} holds another file.", field="upload_id")
        return upload

    # ---- jobs ----

    async def plan_job(self, request: pb.JobRequest) -> pb.PlanSummary:
        """What a job would do, without creating it."""
        return (await self._calls.call(pb.PlanJobResponse, pb.PlanJobRequest(request=request))).plan

    async def create_job(self, request: pb.JobRequest, job_id: str = "", *, queue_s: float = 0.0) -> pb.Job:
        """Create a job; the id is generated when empty. A known id with an equal request returns the job that exists.

        A gateway that takes no more jobs now is asked again for ``queue_s`` seconds, as often as it says.

        Raises:
            QueueFull: it took none until then.
        """
        message = pb.CreateJobRequest(job_id=job_id or secrets.token_hex(8), request=request)
        until = time.monotonic() + queue_s
        while True:
            try:
                return (await self._calls.call(pb.CreateJobResponse, message)).job
            except QueueFull as error:
                pause_s = error.retry_after_s or _QUEUE_PAUSE_S
                if time.monotonic() + pause_s > until:
                    raise
                await asyncio.sleep(pause_s)

    async def get_job(self, job_id: str) -> pb.Job:
        """A job as it is now."""
        return (await self._calls.call(pb.GetJobResponse, pb.GetJobRequest(job_id=job_id))).job

    async def list_jobs(
        self, page_size: int = 50, page_token: str = "", states: Iterable[pb.JobState] = (), *, all_owners: bool = False
    ) -> pb.ListJobsResponse:
        """One page of jobs, newest first; no ``states`` means all. ``all_owners``: those of everybody, for administrators."""
        request = pb.ListJobsRequest(page_size=page_size, page_token=page_token, states=states, all_owners=all_owners)
        return await self._calls.call(pb.ListJobsResponse, request)

    async def watch_job(self, job_id: str) -> AsyncGenerator[pb.Job, None]:
        """The job now and after each change, until it has ended; subscribes again when the stream breaks."""
        request = pb.WatchJobRequest(job_id=job_id)
        calls = self._calls
        watching = calls.messages(lambda: calls.stub.WatchJob(request, metadata=calls.metadata(), timeout=STREAM_S))
        async with contextlib.aclosing(watching) as messages:
            async for message in messages:
                yield message.job
                if message.job.state in ENDED_STATES:
                    return

    async def wait_job(self, job_id: str) -> pb.Job:
        """The job when it has ended, however it did; wrap it in ``asyncio.timeout`` for a deadline."""
        async with contextlib.aclosing(self.watch_job(job_id)) as jobs:
            async for job in jobs:
                ended = job
        return ended

    async def cancel_job(self, job_id: str) -> pb.Job:
        """Cancel a job; one that is cancelled already is returned as it is.

        Raises:
            WrongState: it has ended otherwise.
        """
        try:
            return (await self._calls.call(pb.CancelJobResponse, pb.CancelJobRequest(job_id=job_id))).job
        except WrongState:
            # Perhaps the answer to an earlier try was lost.
            job = await self.get_job(job_id)
            if job.state != pb.JOB_STATE_CANCELLED:
                raise
            return job

    async def delete_job(self, job_id: str) -> None:
        """Remove a job that has ended, with its result."""
        await self._calls.call(pb.DeleteJobResponse, pb.DeleteJobRequest(job_id=job_id), again=False)

    async def retry_job(self, job_id: str) -> pb.Job:
        """Start a failed or cancelled job again; stored segments are used again."""
        return (await self._calls.call(pb.RetryJobResponse, pb.RetryJobRequest(job_id=job_id), again=False)).job

    # ---- results ----

    async def read_result(self, job_id: str, offset: int = 0, length: int = 0, segment: int | None = None) -> Reading:
        """The result (or a stored segment) from ``offset`` on, ``length`` bytes of it, 0: all; and what the whole is."""

        def open_part(start: int, count: int) -> Any:
            request = pb.DownloadResultRequest(job_id=job_id, offset=start, length=count, segment=segment)
            return self._calls.stub.DownloadResult(request, metadata=self._calls.metadata(), timeout=STREAM_S)

        return await self._calls.read(open_part, offset, length)

    async def read_source(self, job_id: str, offset: int = 0, length: int = 0) -> Reading:
        """The same for the uploaded file of a job."""

        def open_part(start: int, count: int) -> Any:
            request = pb.DownloadSourceRequest(job_id=job_id, offset=start, length=count)
            return self._calls.stub.DownloadSource(request, metadata=self._calls.metadata(), timeout=STREAM_S)

        return await self._calls.read(open_part, offset, length)

    async def download_result(self, job_id: str, path: Path, *, on_progress: OnProgress | None = None) -> pb.ObjectInfo:
        """Write the result to ``path``, which appears when it is whole and its SHA-256 was checked.

        What arrived of it is kept beside ``path``, and a later try goes on from there.

        Raises:
            Unavailable: it arrived damaged.
            WrongState: another process is writing the same file.
            OSError: the file can't be written.
        """
        return await download(lambda offset, length: self.read_result(job_id, offset, length), path, on_progress)

    async def download_source(self, job_id: str, path: Path, *, on_progress: OnProgress | None = None) -> pb.ObjectInfo:
        """The same for the source of a job."""
        return await download(lambda offset, length: self.read_source(job_id, offset, length), path, on_progress)

    async def playlist(self, job_id: str) -> pb.GetPlaylistResponse:
        """HLS playlist of the segments stored so far."""
        return await self._calls.call(pb.GetPlaylistResponse, pb.GetPlaylistRequest(job_id=job_id))

    async def frame(self, job_id: str, of: pb.FrameOf, frame: int, max_side: int = 0) -> bytes:
        """A frame, counted from the job's first one, as PNG; ``max_side`` reduces the longer side, in pixels."""
        request = pb.GetFrameRequest(job_id=job_id, of=of, frame=frame, max_side=max_side)
        return bytes((await self._calls.call(pb.GetFrameResponse, request)).image)

    async def quality_report(self, job_id: str) -> pb.GetQualityReportResponse:
        """What was checked when the result was joined."""
        return await self._calls.call(pb.GetQualityReportResponse, pb.GetQualityReportRequest(job_id=job_id))

    # ---- callers ----

    async def caller(self) -> pb.GetCallerResponse:
        """Who calls, as the gateway sees it."""
        return await self._calls.call(pb.GetCallerResponse, pb.GetCallerRequest())

    async def usage(self, month: str = "", *, all_owners: bool = False) -> pb.GetUsageResponse:
        """What the caller used in a month, YYYY-MM (empty: this one), and may use; ``all_owners``: what everybody used."""
        return await self._calls.call(pb.GetUsageResponse, pb.GetUsageRequest(month=month, all_owners=all_owners))

    # ---- cluster ----

    async def models(self) -> pb.ListModelsResponse:
        """Models that this installation knows."""
        return await self._calls.call(pb.ListModelsResponse, pb.ListModelsRequest())

    async def cluster_status(self) -> pb.GetClusterStatusResponse:
        """Workers and load."""
        return await self._calls.call(pb.GetClusterStatusResponse, pb.GetClusterStatusRequest())


async def _upload_messages(
    upload_id: str, offset: int, pieces: AsyncIterable[bytes], finish: bool, sha256: str
) -> AsyncGenerator[pb.WriteUploadRequest, None]:
    yield pb.WriteUploadRequest(start=pb.WriteUploadStart(upload_id=upload_id, offset=offset))
    async for piece in pieces:
        for start in range(0, len(piece), PIECE_BYTES):
            yield pb.WriteUploadRequest(data=piece[start : start + PIECE_BYTES])
    if finish:
        yield pb.WriteUploadRequest(finish=pb.WriteUploadFinish(sha256=sha256))
