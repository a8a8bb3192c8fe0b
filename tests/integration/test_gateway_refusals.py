"""Everything that a caller can do wrong: one clear sentence, the right status, and nothing left behind or lost."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
import pytest_asyncio

from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc.server import open_channel
from tests.clips import make
from tests.integration.gateway_calls import objects, refused, request
from tests.integration.processes import Process, echo_worker, gateway, running

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

INVALID, MISSING, OUTSIDE = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND, grpc.StatusCode.OUT_OF_RANGE
LIMIT_BYTES = 30_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    directory = tmp_path_factory.mktemp("refusals")
    worker = echo_worker(directory / "worker")
    async with running(worker):
        limits = {"max_upload_bytes": LIMIT_BYTES, "max_source_pixels": 4_000_000, "max_output_pixels": 4_000_000}
        process = gateway(directory / "gateway", worker, **limits, max_duration_s=60, preview_max_s=1)
        async with running(process):
            yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(service: Process) -> AsyncIterator[GatewayClient]:
    async with GatewayClient(service.address) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def good(client: GatewayClient, tmp_path_factory: pytest.TempPathFactory) -> pb.Upload:
    """Two seconds with PCM sound, which an MP4 can't hold here."""
    source = make.video(tmp_path_factory.mktemp("clip") / "good.mkv", frames=50, audio="pcm_s16le")
    return await client.upload_file(source, upload_id="good")


def _raw(path: Path) -> Path:
    return make.video(path.with_suffix(".avi"), codec="rawvideo", frames=2)


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "not a video": (lambda p: p.write_text("Dear reader,\n" * 500), "in no video format that is known here"),
    "empty": (lambda p: p.write_bytes(b""), "The file is empty"),
    "cut before its index": (
        lambda p: make.truncated(p, make.video(p.with_suffix(".mp4")), 0.5),
        "ends before its index",
    ),
    "zero frames": (lambda p: make.without_frames(p.with_suffix(".mp4")).rename(p), "without a single frame"),
    "sound only": (lambda p: make.sound_only(p.with_suffix(".mp4")).rename(p), "sound but no video"),
    "absurd dimensions": (lambda p: make.with_huge_header(p, _raw(p), 9000), "9000×9000 pixels"),
    "too small": (lambda p: make.video(p.with_suffix(".avi"), size=(14, 14), codec="mpeg4").rename(p), "at least 16"),
    "bomb": (lambda p: make.huge_picture(p, 3000), "3000×3000 pixels"),
    "script that names other files": (lambda p: p.write_text("ffconcat version 1.0\nfile /etc/hostname\n"), "no video format"),
}


@pytest.mark.parametrize("name", FILES)
async def test_a_file_that_can_not_be_restored_is_refused(service: Process, client: GatewayClient, tmp_path: Path, name: str):
    spoil, text = FILES[name]
    spoil(tmp_path / "bad")
    upload = await client.upload_file(tmp_path / "bad")
    before = objects(service._directory)
    for call in (client.create_job(request(upload), "refused"), client.plan_job(request(upload))):
        with refused(INVALID, "InvalidVideo", text):
            await call
    with refused(MISSING, "JobNotFound", "no job refused", "job_id"):
        await client.get_job("refused")
    assert objects(service._directory) == before
    await client.delete_upload(upload.upload_id)


def box(width: int, height: int) -> pb.Target:
    return pb.Target(box=pb.Box(width=width, height=height))


OPTIONS: dict[str, tuple[dict[str, Any], str, str, str]] = {
    "unknown model": ({"model": "seedvr9"}, "InvalidOption", "choose echo", "request.model"),
    "unknown pool": ({"pool": "q"}, "InvalidOption", "choose echo", "request.pool"),
    "scale": ({"scale": 99.0}, "InvalidOption", "give 0.1 to 16", "request.target.scale"),
    "too large": ({"target": box(9000, 9000)}, "InvalidOption", "Choose a smaller target", "request.target"),
    "box": ({"target": box(0, 5)}, "InvalidOption", "at least 16×16", "request.target.box"),
    "empty range": ({"frames": (9, 9)}, "InvalidOption", "has no frames", "request.range.frames"),
    "range behind the end": ({"frames": (50, 60)}, "InvalidOption", "[0, 50)", "request.range.frames"),
    "long preview": ({"preview": True}, "InvalidOption", "at most 1 s", "request.priority"),
    "colour not offered": ({"colour": pb.COLOUR_MODE_LAB}, "InvalidOption", "choose wavelet or none", "request.colour"),
    "colour unknown": ({"colour": 99}, "InvalidOption", "99 is not a value", "request.colour"),
    "container unknown": ({"container": "avi"}, "InvalidOption", "give one of mp4, mkv, png", "request.container"),
    "container too small": ({"container": "mp4"}, "InvalidOption", "can't hold the source's audio", "request.container"),
    "crf": ({"crf": 52}, "InvalidOption", "to 51", "request.crf"),
    "encoder unknown": ({"encoder": "av1"}, "InvalidOption", "give one of x264, nvenc", "request.encoder"),
    "encoder that opens nowhere": ({"encoder": "nvenc"}, "NotSupported", "leave the encoder out for x264", "request.encoder"),
    "labels": ({"labels": {str(i): "" for i in range(17)}}, "InvalidOption", "at most 16", "request.labels"),
    "bucket": (
        {"source": pb.Source(object_uri="s3://a/b")},
        "NotSupported",
        "upload the file",
        "request.source.object_uri",
    ),
    "web source": ({"source": pb.Source(https_url="https://a")}, "NotSupported", "upload the file", "request.source.https_url"),
    "bucket result": ({"result_uri": "s3://a/b"}, "NotSupported", "download the result", "request.result_uri"),
    "webhook": ({"webhook_url": "https://a"}, "NotSupported", "watch the job", "request.webhook_url"),
}


@pytest.mark.parametrize("name", OPTIONS)
async def test_an_option_that_can_not_be_used_is_refused(service: Process, client: GatewayClient, good: pb.Upload, name: str):
    options, reason, text, field = OPTIONS[name]
    source = options.get("source")
    wanted = request(good, **{name: value for name, value in options.items() if name != "source"})
    if source is not None:
        wanted.source.CopyFrom(source)
    code = grpc.StatusCode.UNIMPLEMENTED if reason == "NotSupported" else INVALID
    before = objects(service._directory)
    for call in (client.create_job(wanted, "refused"), client.plan_job(wanted)):
        with refused(code, reason, text, field):
            await call
    assert objects(service._directory) == before


CALLS: dict[str, tuple[Callable[[GatewayClient], Awaitable[Any]], grpc.StatusCode, str, str, str]] = {
    "no source": (lambda c: c.create_job(pb.JobRequest()), INVALID, "InvalidOption", "names no source", "request.source"),
    "bad job id": (lambda c: c.create_job(request("good"), "A"), INVALID, "InvalidOption", "can't be used", "job_id"),
    "bad upload id": (lambda c: c.create_upload("a", 0, "A"), INVALID, "InvalidOption", "can't be used", "upload_id"),
    "bad file name": (lambda c: c.create_upload("a/b"), INVALID, "InvalidOption", "The file name", "filename"),
    "declared past the limit": (
        lambda c: c.create_upload("a", LIMIT_BYTES + 1), grpc.StatusCode.RESOURCE_EXHAUSTED, "TooLarge", "at most", "size_bytes",
    ),
    "upload of nobody": (
        lambda c: c.create_job(request("nobody")), MISSING, "UploadNotFound", "no upload nobody", "request.source.upload_id",
    ),
    "get nobody": (lambda c: c.get_job("nobody"), MISSING, "JobNotFound", "no job nobody", "job_id"),
    "cancel nobody": (lambda c: c.cancel_job("nobody"), MISSING, "JobNotFound", "no job nobody", "job_id"),
    "retry nobody": (lambda c: c.retry_job("nobody"), MISSING, "JobNotFound", "no job nobody", "job_id"),
    "delete nobody": (lambda c: c.delete_job("nobody"), MISSING, "JobNotFound", "no job nobody", "job_id"),
    "watch nobody": (lambda c: anext(c.watch_job("nobody")), MISSING, "JobNotFound", "no job nobody", "job_id"),
    "result of nobody": (lambda c: c.read_result("nobody"), MISSING, "JobNotFound", "no job nobody", "job_id"),
    "upload nobody": (lambda c: c.get_upload("nobody"), MISSING, "UploadNotFound", "no upload nobody", "upload_id"),
    "page size": (lambda c: c.list_jobs(201), INVALID, "InvalidOption", "give 1 to 200", "page_size"),
    "page token": (lambda c: c.list_jobs(2, "x"), INVALID, "InvalidOption", "begin without one", "page_token"),
    "state": (lambda c: c.list_jobs(states=[77]), INVALID, "InvalidOption", "no job state 77", "states"),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
async def test_a_call_that_makes_no_sense_is_refused(client: GatewayClient, good: pb.Upload, name: str):
    call, code, reason, text, field = CALLS[name]
    with refused(code, reason, text, field):
        await call(client)


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def test_a_wrong_offset_says_the_right_one_and_the_upload_goes_on(client: GatewayClient):
    await client.create_upload("a", 0, "offsets")
    await client.write_upload("offsets", 0, pieces(b"abc"), finish=False)
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "ChunkOutOfOrder", "go on from offset 3", "offset"):
        await client.write_upload("offsets", 5, pieces(b"de"), finish=True)
    with refused(INVALID, "InvalidInput", "another SHA-256", "finish.sha256"):
        await client.write_upload("offsets", 3, pieces(b"de"), finish=True, sha256="00" * 32)
    assert (await client.write_upload("offsets", 5, pieces(), finish=True)).complete
    await client.delete_upload("offsets")


async def test_an_upload_past_the_limit_ends_at_the_limit_and_can_be_deleted(service: Process, client: GatewayClient):
    await client.create_upload("a", 0, "long")
    many = [bytes(1 << 20)] * (LIMIT_BYTES // (1 << 20) + 1)
    with refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "TooLarge", "cut the video", "size_bytes"):
        await client.write_upload("long", 0, pieces(*many), finish=True)
    kept = await client.get_upload("long")
    assert (kept.complete, kept.received_bytes) == (False, len(many[:-1]) << 20)
    await client.delete_upload("long")
    assert not [key for key in objects(service._directory) if "uploads/long/" in key]


async def test_an_upload_stream_must_begin_with_its_name(service: Process):
    async with open_channel(service.address) as channel:
        call = gateway_pb2_grpc.GatewayStub(channel).WriteUpload(iter([pb.WriteUploadRequest(data=b"x")]))
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
    assert caught.value.code() is INVALID
    assert "must name the upload" in caught.value.details()


async def test_an_incomplete_upload_is_no_source_yet(client: GatewayClient):
    await client.create_upload("a", 9, "part")
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "WrongState", "0 bytes are there", "request.source.upload_id"):
        await client.create_job(request("part"))
    await client.delete_upload("part")


async def test_an_id_that_is_taken_by_something_else_is_refused(client: GatewayClient, good: pb.Upload):
    job = await client.create_job(request(good, frames=(0, 2)), "mine")
    with refused(grpc.StatusCode.ALREADY_EXISTS, "AlreadyExists", "another request", "job_id"):
        await client.create_job(request(good, frames=(0, 3)), "mine")
    with refused(grpc.StatusCode.ALREADY_EXISTS, "AlreadyExists", "another upload", "upload_id"):
        await client.create_upload("other.mp4", 0, "good")
    done = [now async for now in client.watch_job(job.job_id)][-1]
    assert done.state == pb.JOB_STATE_SUCCEEDED


STATES: dict[str, tuple[Callable[[GatewayClient], Awaitable[Any]], grpc.StatusCode, str, str, str]] = {
    "cancel": (lambda c: c.cancel_job("ended"), grpc.StatusCode.FAILED_PRECONDITION, "WrongState", "it has its result", ""),
    "retry": (lambda c: c.retry_job("ended"), grpc.StatusCode.FAILED_PRECONDITION, "WrongState", "it has its result", ""),
    "offset": (lambda c: c.read_result("ended", 1 << 40), OUTSIDE, "RangeOutOfBounds", "bytes", "offset"),
    "segment": (
        lambda c: c.read_result("ended", segment=7), OUTSIDE, "RangeOutOfBounds", "segments 0 to 0", "segment",
    ),
    "frame": (
        lambda c: c.frame("ended", pb.FRAME_OF_RESULT, 2), OUTSIDE, "RangeOutOfBounds", "last one is 1", "frame",
    ),
    "frame of what": (lambda c: c.frame("ended", pb.FRAME_OF_UNSPECIFIED, 0), INVALID, "InvalidOption", "Say of which", "of"),
    "frame size": (lambda c: c.frame("ended", pb.FRAME_OF_SOURCE, 0, 9999), INVALID, "InvalidOption", "1 to 4096", "max_side"),
}  # fmt: skip


@pytest.mark.parametrize("name", STATES)
async def test_what_a_finished_job_does_not_have_is_refused(client: GatewayClient, good: pb.Upload, name: str):
    await client.create_job(request(good, frames=(0, 2)), "ended")
    async for _ in client.watch_job("ended"):
        pass
    call, code, reason, text, field = STATES[name]
    with refused(code, reason, text, field):
        await call(client)


async def test_no_refusal_was_a_failure_of_the_service(service: Process):
    assert "Traceback" not in service.log
    assert '"level": "error"' not in service.log
