"""The Python client of the gateway, for the web page, the command line and programs.

Messages are those of ``gateway.proto``; failures arrive as the classes of ``errors.py``. Every unary call has a deadline and
is repeated within it where that is safe; streams go on where they broke off, so a gateway that restarts costs a pause only.
"""

import asyncio
import contextlib
import functools
import secrets
import types
from collections.abc import AsyncGenerator, AsyncIterable, Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeVar, cast

import grpc
from google.protobuf.message import Message
from grpc_status import rpc_status

from services.common.durable import replaced_when_done
from services.common.errors import (
    AlreadyExists,
    ChunkOutOfOrder,
    DeadlinePassed,
    Draining,
    ServiceError,
    StoreUnavailable,
    Unavailable,
    WrongState,
)
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc.ending import CallEnding
from services.common.rpc.server import PIECE_BYTES, open_channel
from services.common.rpc.status import error_of
from services.common.transfer import OnProgress, Patience, file_pieces, measure_file, write_pieces

T = TypeVar("T", bound=Message)
Reading = tuple[pb.ObjectInfo, AsyncGenerator[bytes, None]]
"""What an object is as a whole, and the pieces of the part that was asked for."""

ENDED_STATES = frozenset({pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED})
"""States that a job doesn't leave by itself."""

# Answers such as WorkerUnavailable are news for the caller; these say only that this moment was a bad one.
_PASSING = (Unavailable, StoreUnavailable, Draining)


class GatewayClient:
    """A connection to a gateway, opened at the first call; use it in one event loop.

    Every method raises the ServiceError that the gateway raised, Unavailable where none can be reached, DeadlinePassed where
    none answers in time.
    """

    def __init__(self, address: str, *, timeout_s: float = 30.0, patience_s: float = 120.0) -> None:
        """``timeout_s`` limits a unary call with its repetitions, ``patience_s`` the time that a stream is taken up again
        while nothing arrives."""
        self._address = address
        self._timeout_s = timeout_s
        self._patience_s = patience_s

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """End open calls and the connection."""
        await self._channel.close()

    async def wait_connected(self, timeout_s: float) -> None:
        """Return once a gateway accepts connections.

        Raises:
            Unavailable: none does within ``timeout_s``.
        """
        try:
            await asyncio.wait_for(self._channel.channel_ready(), timeout_s)
        except TimeoutError as error:
            raise self._nobody() from error

    # ---- uploads ----

    async def create_upload(self, filename: str, size_bytes: int = 0, upload_id: str = "") -> pb.Upload:
        """Begin an upload; the id is generated when empty. A known id with equal values returns the upload that exists."""
        request = pb.CreateUploadRequest(upload_id=upload_id or secrets.token_hex(8), filename=filename, size_bytes=size_bytes)
        return (await self._call(pb.CreateUploadResponse, request)).upload

    async def write_upload(
        self, upload_id: str, offset: int, pieces: AsyncIterable[bytes], *, finish: bool, sha256: str = ""
    ) -> pb.Upload:
        """Send bytes from ``offset`` on in one stream; ``finish`` completes the upload, ``sha256`` is then checked.

        A stream that breaks raises; :meth:`get_upload` tells from where to go on.
        """
        call = self._stub.WriteUpload()
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
            raise self._error(await ending.failure(raised)) from raised
        finally:
            call.cancel()
        return answer.upload

    async def get_upload(self, upload_id: str) -> pb.Upload:
        """An upload as it is now."""
        return (await self._call(pb.GetUploadResponse, pb.GetUploadRequest(upload_id=upload_id))).upload

    async def delete_upload(self, upload_id: str) -> None:
        """Remove an upload."""
        await self._call(pb.DeleteUploadResponse, pb.DeleteUploadRequest(upload_id=upload_id), again=False)

    async def upload_file(self, path: Path, *, upload_id: str = "", on_progress: OnProgress | None = None) -> pb.Upload:
        """Upload a file; goes on where a broken stream, or an earlier try with this ``upload_id``, stopped.

        Raises:
            AlreadyExists: another file was uploaded under this id.
            OSError: the file can't be read.
        """
        size_bytes, sha256 = await asyncio.to_thread(measure_file, path)
        upload = await self.create_upload(path.name, size_bytes, upload_id)
        patience = Patience(self._patience_s)
        while not upload.complete:
            kept = upload.received_bytes
            try:
                async with contextlib.aclosing(file_pieces(path, kept, size_bytes, on_progress)) as pieces:
                    upload = await self.write_upload(upload.upload_id, kept, pieces, finish=True, sha256=sha256)
            except ServiceError as error:
                # Out of order: the gateway was still storing what an earlier, broken stream had brought.
                if not (_passing(error) or isinstance(error, ChunkOutOfOrder)):
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
        return (await self._call(pb.PlanJobResponse, pb.PlanJobRequest(request=request))).plan

    async def create_job(self, request: pb.JobRequest, job_id: str = "") -> pb.Job:
        """Create a job; the id is generated when empty. A known id with an equal request returns the job that exists."""
        return (
            await self._call(pb.CreateJobResponse, pb.CreateJobRequest(job_id=job_id or secrets.token_hex(8), request=request))
        ).job

    async def get_job(self, job_id: str) -> pb.Job:
        """A job as it is now."""
        return (await self._call(pb.GetJobResponse, pb.GetJobRequest(job_id=job_id))).job

    async def list_jobs(
        self, page_size: int = 50, page_token: str = "", states: Iterable[pb.JobState] = ()
    ) -> pb.ListJobsResponse:
        """One page of jobs, newest first; no ``states`` means all."""
        request = pb.ListJobsRequest(page_size=page_size, page_token=page_token, states=states)
        return await self._call(pb.ListJobsResponse, request)

    async def watch_job(self, job_id: str) -> AsyncGenerator[pb.Job, None]:
        """The job now and after each change, until it has ended; subscribes again when the stream breaks."""
        request = pb.WatchJobRequest(job_id=job_id)
        async with contextlib.aclosing(self._messages(lambda: self._stub.WatchJob(request))) as messages:
            async for message in messages:
                yield message.job
                if message.job.state in ENDED_STATES:
                    return

    async def cancel_job(self, job_id: str) -> pb.Job:
        """Cancel a job; one that is cancelled already is returned as it is.

        Raises:
            WrongState: it has ended otherwise.
        """
        try:
            return (await self._call(pb.CancelJobResponse, pb.CancelJobRequest(job_id=job_id))).job
        except WrongState:
            # Perhaps the answer to an earlier try was lost.
            job = await self.get_job(job_id)
            if job.state != pb.JOB_STATE_CANCELLED:
                raise
            return job

    async def delete_job(self, job_id: str) -> None:
        """Remove a job that has ended, with its result."""
        await self._call(pb.DeleteJobResponse, pb.DeleteJobRequest(job_id=job_id), again=False)

    async def retry_job(self, job_id: str) -> pb.Job:
        """Start a failed or cancelled job again; stored segments are used again."""
        return (await self._call(pb.RetryJobResponse, pb.RetryJobRequest(job_id=job_id), again=False)).job

    # ---- results ----

    async def read_result(self, job_id: str, offset: int = 0, length: int = 0, segment: int | None = None) -> Reading:
        """The result (or a stored segment) from ``offset`` on, ``length`` bytes of it, 0: all; and what the whole is."""

        def open_part(start: int, count: int) -> Any:
            request = pb.DownloadResultRequest(job_id=job_id, offset=start, length=count, segment=segment)
            return self._stub.DownloadResult(request)

        return await self._read(open_part, offset, length)

    async def read_source(self, job_id: str, offset: int = 0, length: int = 0) -> Reading:
        """The same for the uploaded file of a job."""

        def open_part(start: int, count: int) -> Any:
            return self._stub.DownloadSource(pb.DownloadSourceRequest(job_id=job_id, offset=start, length=count))

        return await self._read(open_part, offset, length)

    async def download_result(self, job_id: str, path: Path, *, on_progress: OnProgress | None = None) -> pb.ObjectInfo:
        """Write the result to ``path``, which appears when it is whole and its SHA-256 was checked.

        Raises:
            Unavailable: it arrived damaged.
            OSError: the file can't be written.
        """
        info, pieces = await self.read_result(job_id)
        async with contextlib.aclosing(pieces):
            with replaced_when_done(path) as file:
                if await write_pieces(pieces, file, info.size_bytes, on_progress) != info.sha256:
                    raise Unavailable("The result arrived damaged; download it again.")
        return info

    async def playlist(self, job_id: str) -> pb.GetPlaylistResponse:
        """HLS playlist of the segments stored so far."""
        return await self._call(pb.GetPlaylistResponse, pb.GetPlaylistRequest(job_id=job_id))

    async def frame(self, job_id: str, of: pb.FrameOf, frame: int, max_side: int = 0) -> bytes:
        """A frame, counted from the job's first one, as PNG; ``max_side`` reduces the longer side, in pixels."""
        request = pb.GetFrameRequest(job_id=job_id, of=of, frame=frame, max_side=max_side)
        return bytes((await self._call(pb.GetFrameResponse, request)).image)

    async def quality_report(self, job_id: str) -> pb.GetQualityReportResponse:
        """What was checked when the result was joined."""
        return await self._call(pb.GetQualityReportResponse, pb.GetQualityReportRequest(job_id=job_id))

    # ---- cluster ----

    async def models(self) -> pb.ListModelsResponse:
        """Models that this installation knows."""
        return await self._call(pb.ListModelsResponse, pb.ListModelsRequest())

    async def cluster_status(self) -> pb.GetClusterStatusResponse:
        """Workers and load."""
        return await self._call(pb.GetClusterStatusResponse, pb.GetClusterStatusRequest())

    # ---- calls ----

    @functools.cached_property
    def _channel(self) -> grpc.aio.Channel:
        return open_channel(self._address)

    @functools.cached_property
    def _stub(self) -> Any:
        return gateway_pb2_grpc.GatewayStub(self._channel)

    async def _call(self, answer: type[T], request: Any, *, again: bool = True) -> T:
        """The unary call that answers with ``answer``; ``again``: a repetition does no harm when an answer was lost."""
        method = getattr(self._stub, answer.DESCRIPTOR.name.removesuffix("Response"))
        patience = Patience(self._timeout_s)
        while True:
            try:
                return cast(T, await method(request, timeout=patience.left_s()))
            except grpc.RpcError as failure:
                error = self._error(failure)
                if not (again and _passing(error)):
                    raise error from failure
            await patience.wait(error)

    async def _messages(self, open_stream: Callable[[], Any]) -> AsyncGenerator[Any, None]:
        """Messages of a stream that is opened again whenever it breaks or ends; the reader knows when it has them all."""
        patience = Patience(self._patience_s)
        while True:
            error: ServiceError = self._nobody()
            call = open_stream()
            try:
                async for message in call:
                    patience.renew()
                    yield message
            except grpc.RpcError as failure:
                error = self._error(failure)
                if not _passing(error):
                    raise error from failure
            finally:
                call.cancel()
            await patience.wait(error)

    async def _read(self, open_part: Callable[[int, int], Any], offset: int, length: int) -> Reading:
        part = _Part(offset, length)
        messages = self._messages(lambda: open_part(part.offset, part.length))
        first = await anext(messages)
        to_the_end = max(0, first.info.size_bytes - offset)
        part.length = min(length, to_the_end) if length else to_the_end
        return first.info, _data(first, messages, part)

    def _error(self, failure: grpc.RpcError) -> ServiceError:
        error = error_of(failure)
        if rpc_status.from_call(failure) is not None:
            return error
        if isinstance(error, Unavailable):
            return self._nobody()
        if isinstance(error, DeadlinePassed):
            return DeadlinePassed(f"The gateway at {self._address} didn't answer within {self._timeout_s:g} s.")
        return error

    def _nobody(self) -> Unavailable:
        return Unavailable(f"No gateway answers at {self._address}; is it running, and is the address right?")


@dataclass(slots=True)
class _Part:
    """What is still missing of a download; length 0 before the size is known: all."""

    offset: int
    length: int


def _passing(error: ServiceError) -> bool:
    return type(error) in _PASSING


async def _upload_messages(
    upload_id: str, offset: int, pieces: AsyncIterable[bytes], finish: bool, sha256: str
) -> AsyncGenerator[pb.WriteUploadRequest, None]:
    yield pb.WriteUploadRequest(start=pb.WriteUploadStart(upload_id=upload_id, offset=offset))
    async for piece in pieces:
        for start in range(0, len(piece), PIECE_BYTES):
            yield pb.WriteUploadRequest(data=piece[start : start + PIECE_BYTES])
    if finish:
        yield pb.WriteUploadRequest(finish=pb.WriteUploadFinish(sha256=sha256))


async def _data(first: Any, messages: AsyncGenerator[Any, None], part: _Part) -> AsyncGenerator[bytes, None]:
    message = first
    async with contextlib.aclosing(messages):
        while True:
            if message.HasField("info") and message.info != first.info:
                raise WrongState("The file changed while it was read; begin again.")
            part.offset += len(message.data)
            part.length -= len(message.data)
            if message.data:
                yield message.data
            if part.length <= 0:
                return
            message = await anext(messages)
