"""The whole line over real sockets: client, gateway process, a small real worker process, a directory as store."""

import json
from collections.abc import AsyncIterator, Callable
from fractions import Fraction
from pathlib import Path

import av
import pytest
import pytest_asyncio
from google.protobuf import duration_pb2

from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.clips import make
from tests.integration.gateway_calls import (
    downloaded,
    finished,
    greys,
    objects,
    packets,
    read_all,
    request,
    sha256,
    stamps,
)
from tests.integration.processes import Process, echo_worker, gateway, running

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    directory = tmp_path_factory.mktemp("service")
    worker = echo_worker(directory / "worker")
    async with running(worker):
        process = gateway(directory / "gateway", worker)
        async with running(process):
            yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(service: Process) -> AsyncIterator[GatewayClient]:
    async with GatewayClient(service.address) as client:
        yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def done(client: GatewayClient, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, pb.Upload, pb.Job]:
    """A source, its upload, and its job that has succeeded."""
    source = make.video(tmp_path_factory.mktemp("clip") / "talk.mp4", audio="aac")
    upload = await client.upload_file(source)
    job = await client.create_job(request(upload, labels={"for": "tests"}), "talk")
    return source, upload, await finished(client, job.job_id)


def store_of(service: Process) -> Path:
    return service._directory


# ---- one job ----


async def test_spans_begin_at_cuts_and_elsewhere_bring_context_that_no_result_shows(tmp_path: Path):
    # The picture's grey jumps once, from frame 44 to 45.
    source = make.video(tmp_path / "long.mp4", frames=80)
    log = tmp_path / "spans.jsonl"
    worker = echo_worker(tmp_path / "worker", context_frames=4, log_file=log)
    async with running(worker):
        process = gateway(tmp_path / "gateway", worker, span_seconds=1.0)
        async with running(process), GatewayClient(process.address) as client:
            upload = await client.upload_file(source)
            job = await client.create_job(request(upload), "long")
            assert not (await finished(client, job.job_id)).notes
            result = await downloaded(client, job.job_id, tmp_path / "r.mp4")
            preview = await client.create_job(request(upload, frames=(40, 50), preview=True), "part")
            assert (await finished(client, preview.job_id)).result.frames == 10
    spans = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted((s["job"], *s["frames"], s["context"], s["cuts"]) for s in spans) == [
        ("long", 0, 22, 0, []), ("long", 18, 45, 4, []), ("long", 45, 62, 0, []), ("long", 58, 80, 4, []),
        ("part", 40, 50, 0, [45]),
    ]  # fmt: skip
    assert stamps(result) == stamps(source)
    assert greys(result) == pytest.approx(greys(source), abs=3)


async def test_a_result_has_the_sources_frames_stamps_and_sound(
    client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job], tmp_path: Path
):
    source, _, job = done
    result = await downloaded(client, job.job_id, tmp_path / "r.mp4")
    assert stamps(result) == stamps(source)
    assert packets(result, "audio") == packets(source, "audio")
    assert greys(result) == pytest.approx(greys(source), abs=3)
    with av.open(str(result)) as container:
        video = container.streams.video[0]
        assert (video.width, video.height, video.codec_context.name, video.pix_fmt) == (128, 96, "h264", "yuv420p")


async def test_a_job_that_succeeded_says_everything(done: tuple[Path, pb.Upload, pb.Job]):
    _, _, job = done
    assert (job.result.filename, job.result.media_type, job.result.frames) == ("talk_restored.mp4", "video/mp4", 24)
    assert (job.result.width, job.result.height, job.result.duration.nanos) == (128, 96, 960_000_000)
    assert (job.plan.model, job.plan.frames, job.plan.spans, job.plan.segments) == ("echo", 24, 1, 3)
    assert (job.progress.frames_done, job.progress.segments_done) == (24, 3)
    assert dict(job.request.labels) == {"for": "tests"}
    assert job.created_at.ToNanoseconds() <= job.started_at.ToNanoseconds() <= job.ended_at.ToNanoseconds()
    assert job.result.elapsed.ToNanoseconds() > 0
    assert not job.notes


async def test_the_quality_report_says_what_was_checked(client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job]):
    checks = (await client.quality_report("talk")).checks
    assert [(c.name, c.passed) for c in checks] == [("frame_count", True), ("time_stamps", True), ("audio_packets", True)]


async def test_results_and_sources_are_downloaded_in_parts(
    client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job], tmp_path: Path
):
    source, upload, job = done
    whole = (await downloaded(client, "talk", tmp_path / "r.mp4")).read_bytes()
    info, pieces = await client.read_result("talk", 100, 50)
    assert (info.size_bytes, info.sha256, info.filename) == (len(whole), job.result.sha256, "talk_restored.mp4")
    assert await read_all((info, pieces)) == whole[100:150]
    assert await read_all(await client.read_result("talk", len(whole))) == b""
    info, pieces = await client.read_source("talk", 10)
    assert (info.sha256, info.filename) == (upload.sha256, "talk.mp4")
    assert await read_all((info, pieces)) == source.read_bytes()[10:]


async def test_the_playlists_segments_play(client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job], tmp_path: Path):
    playlist = await client.playlist("talk")
    assert (playlist.complete, playlist.segments) == (True, 3)
    assert playlist.m3u8.endswith("#EXT-X-ENDLIST\n")
    assert [line for line in playlist.m3u8.splitlines() if not line.startswith("#")] == ["0.mp4", "1.mp4", "2.mp4"]
    (tmp_path / "list.m3u8").write_text(playlist.m3u8)
    for number in range(3):
        data = await read_all(await client.read_result("talk", segment=number))
        (tmp_path / f"{number}.mp4").write_bytes(data)
    with av.open(str(tmp_path / "list.m3u8"), options={"allowed_extensions": "ALL"}) as played:
        assert sum(1 for _ in played.decode(video=0)) == 24


async def test_a_frame_is_shown_before_and_after(client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job], tmp_path: Path):
    for of in (pb.FRAME_OF_SOURCE, pb.FRAME_OF_RESULT):
        (tmp_path / "f.png").write_bytes(await client.frame("talk", of, 17))
        with av.open(str(tmp_path / "f.png")) as picture:
            frame = next(picture.decode(video=0))
        assert (frame.width, frame.height) == (128, 96)
        assert abs(int(frame.to_ndarray(format="rgb24")[-1, 0, 0]) - int(make.picture(17, 64, 48)[-1, 0, 0])) <= 4


async def test_watching_shows_the_stages_and_ends(client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job]):
    job = await client.create_job(request(done[1], seed=1))
    seen = [now async for now in client.watch_job(job.job_id)]
    assert seen[-1].state == pb.JOB_STATE_SUCCEEDED
    revisions = [now.revision for now in seen]
    assert revisions == sorted(revisions)
    assert len(seen) > 2


# ---- many kinds of sources ----

SOURCES: dict[str, Callable[[Path], Path]] = {
    "variable.mp4": lambda p: make.video(
        p, stamps=make.variable_stamps(24), time_base=Fraction(1, 30000), audio="aac", muxer={"video_track_timescale": "30000"}
    ),
    "subtitles.mkv": lambda p: make.video(p, audio="aac", subtitles=True),
    "deep.mp4": lambda p: make.video(p, pixel_format="yuv420p10le"),
    "old.avi": lambda p: make.video(p, codec="mpeg4", options={"bf": "2"}, audio="mp3"),
    "unstamped.avi": lambda p: make.video(p, frames=30),
    "raw.h264": lambda p: make.video(p, container="h264"),
    "open-gop.mp4": lambda p: make.video(p, options={"x264-params": "open-gop=1:keyint=8:min-keyint=4:scenecut=0:bframes=3"}),
    "turned.mp4": lambda p: make.video(p, rotation=90),
    "broadcast.ts": lambda p: make.video(p, audio="aac"),
    "web.webm": lambda p: make.video(p, codec="libvpx-vp9", audio="libopus"),
    "picture.png": make.image,
}
_CONTAINERS = {"subtitles.mkv": "mkv", "picture.png": "png"}
_PIXEL_FORMATS = {"deep.mp4": "yuv420p10le", "picture.png": "rgb24"}


@pytest.mark.parametrize("name", SOURCES)
async def test_every_frame_and_sound_of_a_source_is_in_its_result(client: GatewayClient, tmp_path: Path, name: str):
    source = SOURCES[name](tmp_path / name)
    upload = await client.upload_file(source)
    job = await finished(client, (await client.create_job(request(upload))).job_id)
    result = await downloaded(client, job.job_id, tmp_path / "result")
    assert job.plan.container == _CONTAINERS.get(name, "mp4")
    assert greys(result) == pytest.approx(greys(source), abs=4)
    if name not in ("raw.h264", "broadcast.ts"):
        assert stamps(result) == stamps(source)
    if name != "broadcast.ts":
        assert [data for _, data in packets(result, "audio")] == [data for _, data in packets(source, "audio")]
    assert [data for _, data in packets(result, "subtitle")] == [data for _, data in packets(source, "subtitle")]
    assert all(check.passed for check in (await client.quality_report(job.job_id)).checks)
    with av.open(str(result)) as container:
        frame = next(container.decode(video=0))
        assert frame.rotation == (90 if name == "turned.mp4" else 0)
        assert frame.format.name == _PIXEL_FORMATS.get(name, "yuv420p")


async def test_a_broadcasts_clock_begins_at_zero_with_its_sound(client: GatewayClient, tmp_path: Path):
    source = make.video(tmp_path / "a.ts", audio="aac", muxer={"output_ts_offset": "100"})
    job = await client.create_job(request(await client.upload_file(source)))
    result = await downloaded(client, (await finished(client, job.job_id)).job_id, tmp_path / "r.mp4")
    offset = stamps(source)[0] - packets(source, "audio")[0][0]
    assert stamps(result)[0] - packets(result, "audio")[0][0] == pytest.approx(offset, abs=0.001)
    assert stamps(result)[0] < 0.2


@pytest.mark.parametrize(("name", "muxer"), [("a.mp4", {"movflags": "faststart"}), ("a.mkv", {})])
async def test_of_a_truncated_file_what_is_there_is_restored_with_a_warning(
    client: GatewayClient, tmp_path: Path, name: str, muxer: dict[str, str]
):
    whole = make.video(tmp_path / name, frames=60, muxer=muxer, gop=6)
    upload = await client.upload_file(make.truncated(tmp_path / f"cut-{name}", whole, 0.6))
    job = await finished(client, (await client.create_job(request(upload))).job_id)
    assert "ends early" in job.plan.warnings[0]
    assert 10 < job.result.frames < 60
    result = await downloaded(client, job.job_id, tmp_path / "result")
    # Of the last frames in decoding order some that are shown earlier may be missing.
    assert set(stamps(result)) < set(stamps(whole))
    assert stamps(result)[:10] == stamps(whole)[:10]


# ---- ranges, previews, containers ----


async def test_a_range_of_frames_has_its_part_of_the_sound(
    client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job], tmp_path: Path
):
    source, upload, _ = done
    job = await finished(client, (await client.create_job(request(upload, frames=(7, 19), preview=True))).job_id)
    result = await downloaded(client, job.job_id, tmp_path / "r.mp4")
    wanted = stamps(source)[7:19]
    assert stamps(result) == [stamp - wanted[0] for stamp in wanted]
    assert greys(result) == pytest.approx(greys(source)[7:19], abs=3)
    begin, end = wanted[0], stamps(source)[19]
    sound = [(stamp, data) for stamp, data in packets(source, "audio") if begin <= stamp < end]
    assert [data for _, data in packets(result, "audio")] == [data for _, data in sound]
    assert packets(result, "audio")[0][0] == pytest.approx(float(sound[0][0] - begin), abs=0.001)
    assert (job.plan.first_frame, job.plan.frames) == (7, 12)
    (tmp_path / "f.png").write_bytes(await client.frame(job.job_id, pb.FRAME_OF_SOURCE, 2, 64))
    assert greys(tmp_path / "f.png") == pytest.approx([greys(source)[9]], abs=4)


async def test_a_range_of_time_is_the_frames_shown_in_it(client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job]):
    wanted = request(done[1])
    wanted.range.time.start.CopyFrom(duration_pb2.Duration(nanos=200_000_000))
    wanted.range.time.end.CopyFrom(duration_pb2.Duration(nanos=400_000_000))
    plan = await client.plan_job(wanted)
    assert (plan.first_frame, plan.frames, plan.duration.nanos) == (5, 5, 200_000_000)


async def test_a_container_that_was_asked_for_is_made(
    client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job], tmp_path: Path
):
    source, upload, _ = done
    job = await finished(client, (await client.create_job(request(upload, container="mkv"))).job_id)
    assert job.result.media_type == "video/x-matroska"
    result = await downloaded(client, job.job_id, tmp_path / "r.mkv")
    assert stamps(result) == pytest.approx(stamps(source), abs=0.0005)


async def test_planning_leaves_nothing(service: Process, client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job]):
    before = objects(store_of(service))
    plan = await client.plan_job(request(done[1], scale=1.5, model="echo"))
    assert (plan.width, plan.height, plan.frames, plan.container) == (96, 72, 24, "mp4")
    assert objects(store_of(service)) == before


# ---- ids, pages, deletion ----


async def test_creating_twice_is_creating_once(client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job]):
    assert (await client.create_job(request(done[1], labels={"for": "tests"}), "talk")).revision == done[2].revision


async def test_jobs_are_listed_newest_first_in_pages(client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job]):
    for number in range(5):
        await client.create_job(request(done[1], seed=100 + number, frames=(0, 2)), f"page-{number}")
    found, token = [], ""
    while True:
        page = await client.list_jobs(2, token)
        assert len(page.jobs) <= 2
        found += [job.job_id for job in page.jobs]
        token = page.next_page_token
        if not token:
            break
    assert found[:5] == [f"page-{number}" for number in (4, 3, 2, 1, 0)]
    assert len(set(found)) == len(found)
    assert found[-1] == "talk"
    for number in range(5):
        await finished(client, f"page-{number}")
    assert not (await client.list_jobs(states=[pb.JOB_STATE_CANCELLED])).jobs


async def test_deleting_a_job_leaves_nothing_that_no_other_job_needs(service: Process, client: GatewayClient, tmp_path: Path):
    before = objects(store_of(service))
    upload = await client.upload_file(make.video(tmp_path / "d.mp4", frames=12))
    # The second one has the same pixels, so the segments are shared.
    first = await finished(client, (await client.create_job(request(upload), "d1")).job_id)
    second = await finished(client, (await client.create_job(request(upload, labels={"a": "b"}), "d2")).job_id)
    assert first.result.sha256 == second.result.sha256
    assert not second.progress.stage_seconds
    await client.delete_job("d1")
    assert await read_all(await client.read_result("d2", segment=1))
    await client.delete_job("d2")
    await client.delete_upload(upload.upload_id)
    assert objects(store_of(service)) == before
    assert not list((store_of(service) / "store/.leases").glob("d[12].lock"))


async def test_a_job_id_can_be_used_again_after_its_deletion(client: GatewayClient, done: tuple[Path, pb.Upload, pb.Job]):
    for scale in (1.0, 1.5):
        await finished(client, (await client.create_job(request(done[1], scale=scale, frames=(0, 2)), "again")).job_id)
        await client.delete_job("again")


async def test_an_upload_goes_on_where_a_broken_stream_stopped(client: GatewayClient, tmp_path: Path):
    path = make.video(tmp_path / "u.mp4")
    data = path.read_bytes()

    async def half() -> AsyncIterator[bytes]:
        yield data[:1000]
        raise ConnectionError

    upload = await client.create_upload("u.mp4", len(data))
    with pytest.raises(ConnectionError):
        await client.write_upload(upload.upload_id, 0, half(), finish=True)
    kept = await until_kept(client, upload.upload_id)
    assert kept.received_bytes in (0, 1000)
    whole = await client.upload_file(path, upload_id=upload.upload_id)
    assert (whole.complete, whole.sha256, whole.size_bytes) == (True, sha256(path), len(data))


async def until_kept(client: GatewayClient, upload_id: str) -> pb.Upload:
    """The upload; a second look, because the broken stream may still be noticed."""
    await client.get_upload(upload_id)
    return await client.get_upload(upload_id)


async def test_models_and_workers_are_listed(service: Process, client: GatewayClient):
    models = await client.models()
    assert [(m.name, m.ready, list(m.pools)) for m in models.models] == [("echo", True, ["echo"])]
    assert models.default_model == "echo"
    status = await client.cluster_status()
    assert [(w.pool, w.state in ("ready", "busy"), w.device) for w in status.workers] == [("echo", True, "swscale")]
    assert status.version
