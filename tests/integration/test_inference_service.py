"""The inference service as its gateway sees it: a real process, the embedded model, real packets over a real connection."""

import asyncio
import contextlib
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import psutil
import pytest

from services.common.errors import (
    ChunkOutOfOrder,
    DeadlinePassed,
    Draining,
    FingerprintChanged,
    InvalidOption,
    InvalidVideo,
    ServiceError,
    WorkerBroken,
)
from services.common.pb.seedvr2.v1 import worker_pb2 as pb
from services.common.pb.seedvr2.v1 import worker_pb2_grpc
from services.common.rpc.codec import encode_task
from services.common.rpc.status import error_of
from tests.integration.inference_worker import Calls, Conversation, Worker, connected, packets_of, talk_on
from tests.unit.inference.clips import BUNNY, Clip, decoded, make_clip, read_clip

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    found = Worker(tmp_path_factory.mktemp("worker"))
    yield found
    found.end()


@pytest.fixture
async def calls(worker: Worker) -> AsyncIterator[Calls]:
    async with connected(worker) as found:
        await found.until_state("ready")
        yield found


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(make_clip(frames=20))


@pytest.fixture(scope="module")
def large() -> Clip:
    """Each of its slices takes a while."""
    return read_clip(make_clip(frames=24, width=192, height=128))


async def test_segments_of_a_real_video_come_back_with_its_time_stamps(calls: Calls):
    bunny = read_clip(BUNNY.read_bytes())
    small = {"width": 80, "height": 46}
    talk = await calls.restore(await calls.task(bunny, end=10, segment_frames=6, plan=small), packets_of(bunny)).hold()
    assert [(s.first, s.end) for s in talk.segments] == [(0, 6), (6, 10)]
    frames = [f for data in talk.segments.values() for f in decoded(data)]
    assert [f.pts for f in frames] == list(bunny.stamps[:10])
    assert {(f.width, f.height, f.format.name) for f in frames} == {(80, 46, "yuv420p")}
    assert talk.done is not None
    assert (talk.done.frames, talk.done.concealed_frames) == (10, 0)
    assert talk.done.megapixels_per_second > 0
    assert talk.done.peak_memory_bytes > 50 << 20
    stages = {"decode", "prepare", "vae_encode", "dit", "vae_decode", "colour", "encode"}
    assert talk.stages == dict.fromkeys(stages, 10)


async def test_a_resumed_span_gives_the_same_bytes_for_what_is_missing(calls: Calls, clip: Clip):
    whole = await calls.restore(await calls.task(clip, first=4, context=4, segment_frames=8), packets_of(clip)).hold()
    rest = await calls.restore(await calls.task(clip, first=4, context=4, segment_frames=8, stored=[4]), packets_of(clip)).hold()
    assert [s.first for s in whole.segments] == [4, 12]
    assert rest.segments == {s: data for s, data in whole.segments.items() if s.first == 12}


async def test_a_shot_inside_a_span_has_the_bytes_of_a_span_that_begins_with_it(calls: Calls, clip: Clip):
    options: dict[str, Any] = {"plan": {"window_latents": 8, "overlap_latents": 2}}
    whole = await calls.restore(await calls.task(clip, segment_frames=5, cuts=[3, 10], **options), packets_of(clip)).hold()
    alone = await calls.restore(await calls.task(clip, first=10, segment_frames=5, **options), packets_of(clip)).hold()
    assert alone.segments == {s: data for s, data in whole.segments.items() if s.first >= 10}
    uncut = await calls.restore(await calls.task(clip, segment_frames=5, **options), packets_of(clip)).hold()
    assert uncut.segments.keys() == whole.segments.keys()
    assert all(uncut.segments[s] != whole.segments[s] for s in uncut.segments)


async def test_a_killed_rank_is_an_error_in_words_and_a_fresh_one_gives_the_same_bytes(worker: Worker, calls: Calls, clip: Clip):
    task = await calls.task(clip)
    whole = await calls.restore(task, packets_of(clip)).hold()
    killed = worker.rank
    talk = calls.restore(task, packets_of(clip))
    await talk.hold(until=lambda t: "vae_encode" in t.stages)
    killed.send_signal(signal.SIGKILL)
    with pytest.raises(WorkerBroken, match=r"Rank 0 .* was lost in the middle of a span: it was ended by SIGKILL"):
        await talk.hold()
    status = await calls.status()
    assert (status.state, status.free_slots, status.models) == ("broken", 0, ())
    assert "SIGKILL" in status.detail
    assert not await calls.serving()
    assert not await calls.serving("seedvr2.v1.Worker")
    await calls.until_state("ready")
    assert await calls.serving()
    assert worker.rank.pid != killed.pid
    again = await calls.restore(await calls.task(clip), packets_of(clip)).hold()
    assert again.segments == whole.segments


async def test_cancelling_frees_the_rank_within_a_slice(worker: Worker, calls: Calls, large: Clip):
    rank = worker.rank
    talk = calls.restore(await calls.task(large), packets_of(large))
    await talk.hold(until=lambda t: "vae_encode" in t.stages)
    assert (await calls.status()).state == "busy"
    talk.call.cancel()
    started = time.monotonic()
    await calls.until_state("ready", timeout_s=20)
    elapsed_s = time.monotonic() - started
    whole = await calls.restore(await calls.task(large), packets_of(large)).hold()
    assert whole.done is not None
    span_s = len(large.stamps) * 192 * 128 / 1e6 / whole.done.megapixels_per_second
    assert elapsed_s < span_s / 2
    assert worker.rank == rank
    assert worker.metric('seedvr2_spans_total{outcome="cancelled"}') >= 1


async def test_a_preview_goes_between_two_slices_of_a_batch_span_and_neither_loses_a_byte(calls: Calls, clip: Clip, large: Clip):
    batch_task = await calls.task(large, segment_frames=8)
    preview_task = await calls.task(clip, end=8, preview=True)
    batch = await calls.restore(batch_task, packets_of(large)).hold()
    preview = await calls.restore(preview_task, packets_of(clip)).hold()
    interrupted = calls.restore(batch_task, packets_of(large))
    await interrupted.hold(until=lambda t: "vae_encode" in t.stages)
    between = await calls.restore(preview_task, packets_of(clip)).hold()
    assert interrupted.done is None
    assert (await calls.status()).state == "busy"
    await talk_on(interrupted)
    assert between.segments == preview.segments
    assert interrupted.segments == batch.segments
    assert interrupted.done is not None


async def test_garbage_is_an_invalid_video_and_the_worker_goes_on(worker: Worker, calls: Calls, clip: Clip):
    rank, task = worker.rank, await calls.task(clip)
    garbage = replace(clip, packets=tuple(replace(p, data=os.urandom(len(p.data))) for p in clip.packets))
    with pytest.raises(InvalidVideo, match="None of the 20 frames"):
        await calls.restore(task, packets_of(garbage)).hold()
    damaged = list(clip.packets)
    damaged[5] = replace(damaged[5], data=damaged[5].data[:3])
    talk = await calls.restore(await calls.task(clip), packets_of(replace(clip, packets=tuple(damaged)))).hold()
    assert [(s.first, s.end) for s in talk.segments] == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 20)]
    assert worker.rank == rank


async def test_a_deadline_reaches_the_rank(worker: Worker, calls: Calls, large: Clip):
    rank, task = worker.rank, await calls.task(large)
    with pytest.raises(DeadlinePassed):
        await calls.restore(task, packets_of(large), timeout_s=1.0).hold()
    await calls.until_state("ready", timeout_s=20)
    assert worker.rank == rank


@pytest.mark.parametrize(
    ("plan", "error", "words"),
    [
        ({"model": "seedvr2-3b"}, InvalidOption, "This worker has loaded nano, not 'seedvr2-3b'"),
        ({"fingerprint": "another"}, FingerprintChanged, "compute differently"),
        ({"model_hash": "another"}, FingerprintChanged, "other weights of nano"),
        ({"width": 65}, InvalidOption, "of a video even"),
    ],
)
async def test_what_was_planned_for_others_is_refused(
    calls: Calls, clip: Clip, plan: dict[str, Any], error: type[ServiceError], words: str
):
    with pytest.raises(error, match=words):
        await calls.restore(await calls.task(clip, plan=plan), packets_of(clip)).hold()


async def test_a_stream_that_is_no_span_is_refused(calls: Calls, clip: Clip):
    stub: Any = worker_pb2_grpc.WorkerStub(calls.channel)
    call = stub.Restore()
    await call.write(pb.RestoreRequest(end=pb.SpanEnd()))
    with pytest.raises(grpc.RpcError) as caught:
        await call.read()
    assert isinstance(error_of(caught.value), ChunkOutOfOrder)


async def test_a_stream_that_breaks_off_ends_the_span(calls: Calls, clip: Clip):
    stub: Any = worker_pb2_grpc.WorkerStub(calls.channel)
    call = stub.Restore()
    await call.write(pb.RestoreRequest(header=encode_task(await calls.task(clip))))
    await call.done_writing()
    with pytest.raises(grpc.RpcError) as caught:
        while await call.read() is not grpc.aio.EOF:
            pass
    assert isinstance(error_of(caught.value), ChunkOutOfOrder)
    await calls.until_state("ready", timeout_s=20)


async def test_a_caller_that_does_not_read_is_not_buffered_for(worker: Worker, calls: Calls, clip: Clip):
    """Back-pressure: nobody takes the segments, so the span stands still, and goes on when somebody does."""
    before = worker.metric("seedvr2_frames_restored_total")
    lossless = {"encoder_options": (("crf", "0"), ("preset", "ultrafast"))}
    noise = read_clip(make_clip(frames=40, width=160, height=96))
    talk = calls.restore(await calls.task(noise, segment_frames=2, plan=lossless), packets_of(noise))
    sending = asyncio.create_task(talk._send())
    restored, still = -1.0, 0
    async with asyncio.timeout(60):
        while still < 5:
            await asyncio.sleep(0.5)
            now = worker.metric("seedvr2_frames_restored_total") - before
            restored, still = now, still + 1 if now == restored and now > 0 else 0
    assert restored < 40
    sending.cancel()
    await talk_on(talk)
    assert sum(s.end - s.first for s in talk.segments) == 40


async def test_what_is_measured_can_be_scraped(worker: Worker, calls: Calls, clip: Clip):
    before = worker.metric("seedvr2_frames_restored_total")
    await calls.restore(await calls.task(clip), packets_of(clip)).hold()
    assert worker.metric("seedvr2_frames_restored_total") == before + 20
    for stage in ("decode", "vae_encode", "dit", "vae_decode", "encode"):
        assert worker.metric(f'seedvr2_stage_duration_seconds_count{{stage="{stage}"}}') > 0
    assert worker.metric("seedvr2_ready") == 1
    assert worker.metric("seedvr2_queue_spans") == 0
    assert worker.metric('seedvr2_rank_memory_bytes{rank="0"}') > 100 << 20
    assert worker.metric('seedvr2_model_load_seconds{rank="0"}') > 0


async def test_the_server_process_loads_neither_torch_nor_ffmpeg(worker: Worker, calls: Calls):
    maps = Path(f"/proc/{worker.process.pid}/maps").read_text()
    assert "libtorch" not in maps
    assert "libavcodec" not in maps
    assert "libtorch" in Path(f"/proc/{worker.rank.pid}/maps").read_text()


async def test_memory_does_not_grow_with_the_length(worker: Worker, calls: Calls):
    long = read_clip(make_clip(frames=240, width=64, height=48, options={"g": "50", "preset": "ultrafast"}))
    readings: list[tuple[int, dict[str, int]]] = []

    def watch(talk: Conversation) -> bool:
        # The process that decodes has ended when the last words arrive.
        with contextlib.suppress(psutil.Error):
            processes = {"server": psutil.Process(worker.process.pid), "rank": worker.rank}
            processes |= dict(zip(["video"], worker.children("services.inference.video.child"), strict=False))
            readings.append((talk.stages.get("encode", 0), {n: p.memory_info().rss for n, p in processes.items()}))
        return False

    talk = await calls.restore(await calls.task(long, segment_frames=20), packets_of(long)).hold(until=watch)
    assert len(talk.segments) == 12
    for name in ("server", "rank", "video"):
        early = max(r[name] for frames, r in readings if frames <= 80 and name in r)
        late = max(r[name] for frames, r in readings if frames > 180 and name in r)
        assert late < early + (8 << 20), name


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Worker]:
    """A worker that the test may end."""
    found = Worker(tmp_path / "own", drain_s=20)
    yield found
    found.end()


async def test_sigterm_lets_a_span_end_and_takes_no_more(own: Worker, large: Clip, clip: Clip):
    async with connected(own) as calls:
        assert (await calls.status()).state == "starting"
        assert not await calls.serving()
        talk = calls.restore(await calls.task(large), packets_of(large))
        other = await calls.task(clip)
        await talk.hold(until=lambda t: "vae_encode" in t.stages)
        own.process.send_signal(signal.SIGTERM)
        await calls.until_state("draining", timeout_s=10)
        assert not await calls.serving()
        with pytest.raises(Draining):
            await calls.restore(other, packets_of(clip)).hold()
        await talk_on(talk)
        assert talk.done is not None
        assert sum(s.end - s.first for s in talk.segments) == 24
        assert await asyncio.to_thread(own.process.wait, 20) == 0
    assert not any("seedvr2" in line and "Traceback" in line for line in own.log.splitlines())


async def test_sigterm_hands_back_a_span_that_takes_too_long(tmp_path: Path, clip: Clip):
    own = Worker(tmp_path / "own", drain_s=0.5)
    try:
        async with connected(own) as calls:
            talk = calls.restore(await calls.task(clip), packets_of(clip, asyncio.Event()))
            holding = asyncio.create_task(talk.hold())
            await calls.until_state("busy")
            rank = own.rank
            own.process.send_signal(signal.SIGTERM)
            with pytest.raises(Draining, match="about to stop"):
                await holding
            assert await asyncio.to_thread(own.process.wait, 20) == 0
            assert not rank.is_running()
    finally:
        own.end()


async def test_sigterm_while_loading_ends_it_at_once(own: Worker):
    async with connected(own) as calls:
        assert (await calls.status()).state == "starting"
    own.process.send_signal(signal.SIGTERM)
    assert await asyncio.to_thread(own.process.wait, 20) == 0


@pytest.mark.parametrize("name", ["address", "metrics_address"])
async def test_a_port_that_is_taken_is_said_in_a_sentence(tmp_path: Path, name: str):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        own = Worker(tmp_path, **{name: f"127.0.0.1:{taken.getsockname()[1]}"})
        try:
            assert await asyncio.to_thread(own.process.wait, 60) == 2
        finally:
            own.end()
    assert own.log.splitlines()[-1].startswith("Can't ")
    assert "Traceback" not in own.log


@pytest.mark.parametrize(("name", "value"), [("model", "micro"), ("model_directory", "/nowhere/at/all"), ("device", "tpu")])
async def test_a_setting_that_makes_no_sense_is_said_in_a_sentence(tmp_path: Path, name: str, value: str):
    model = {"model": "seedvr2-3b"} if name == "model_directory" else {}
    own = Worker(tmp_path, **{name: value, **model})
    try:
        assert await asyncio.to_thread(own.process.wait, 60) == 2
    finally:
        own.end()
    assert len([line for line in own.log.splitlines() if not line.startswith("{")]) == 1
