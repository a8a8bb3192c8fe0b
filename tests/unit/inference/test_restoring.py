"""One span with a real process that decodes and a real rank process, though one without a model."""

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator
from dataclasses import asdict, replace
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import ChunkOutOfOrder, DeadlinePassed, GpuOutOfMemory, InvalidVideo, ServiceError, WorkerBroken
from services.common.media import Packet, SpanTask
from services.common.metrics import InferenceMetrics
from services.inference.gpu.memory import Setting
from services.inference.messages import SegmentReady, SpanEvent, SpanProgress, SpanResult
from services.inference.restoring import SpanWork, rank_order
from services.inference.video.process import VideoLimits, VideoProcesses
from tests.unit.inference.clips import Clip, decoded, make_clip, read_clip, task_for
from tests.unit.inference.quick_groups import quick_groups


class Bench:
    """A group of ranks and the means to run spans on it."""

    def __init__(self, directory: Path, *, ranks: int = 1) -> None:
        self.registry = CollectorRegistry()
        self.wishes = directory / "model"
        self.wishes.mkdir()
        self._sockets = directory / "s"
        self._sockets.mkdir()
        self._metrics = InferenceMetrics(self.registry)
        self.groups = quick_groups(self.wishes, self._metrics, ranks=ranks, sequence=ranks, stop_s=5)
        self.videos = VideoProcesses(self._sockets, VideoLimits(memory_bytes=8 << 30, cpu_s=60, encoder_threads=1))
        self.events: list[SpanEvent] = []

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator["Bench"]:
        ready = asyncio.Event()
        self.groups.on_change(lambda: ready.set() if self.groups.ready else ready.clear())
        self.groups.start()
        try:
            await asyncio.wait_for(ready.wait(), 20)
            yield self
        finally:
            await self.groups.close()

    async def restore(self, task: SpanTask, packets: AsyncIterator[Packet]) -> SpanResult:
        group = self.groups.all[0]
        async with self.videos.open(task) as video:
            order = await group.begin(rank_order(task, group.next_number(), video.path, Setting(slice_latents=1)))
            try:
                return await SpanWork(task, video=video, order=order, emit=self._emit, metrics=self._metrics).run(packets)
            finally:
                video.kill()
                await group.stop(order)

    async def _emit(self, event: SpanEvent) -> None:
        self.events.append(event)

    @property
    def segments(self) -> list[SegmentReady]:
        return [event for event in self.events if isinstance(event, SegmentReady)]


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(make_clip(frames=12))


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with Bench(tmp_path).running() as found:
        yield found


async def packets_of(clip: Clip, error: Exception | None = None) -> AsyncIterator[Packet]:
    for packet in clip.packets:
        yield packet
    if error is not None:
        raise error


async def no_end(clip: Clip) -> AsyncIterator[Packet]:
    for packet in clip.packets[:1]:
        yield packet
    await asyncio.Event().wait()


async def test_segments_progress_and_a_result(bench: Bench, clip: Clip):
    result = await bench.restore(task_for(clip, first=2, context=2, segment_frames=6), packets_of(clip))
    assert (result.frames, result.concealed_frames, result.peak_memory_bytes) == (10, 0, 11)
    assert result.megapixels_per_second > 0
    assert [(e.segment.first, e.segment.end) for e in bench.segments] == [(2, 8), (8, 12)]
    stamps = [f.pts for e in bench.segments for f in decoded(e.data)]
    assert stamps == list(clip.stamps[2:])
    last = {e.stage: e.frames for e in bench.events if isinstance(e, SpanProgress)}
    assert last == {"decode": 10, "dit": 10, "encode": 10}
    value = bench.registry.get_sample_value
    assert value("seedvr2_frames_restored_total") == 10
    assert value("seedvr2_pixels_restored_total") == 10 * 96 * 64
    assert value("seedvr2_stage_duration_seconds_count", {"stage": "dit"}) == 2
    assert value("seedvr2_stage_duration_seconds_sum", {"stage": "dit"}) == 0.5
    assert value("seedvr2_gpu_memory_bytes", {"rank": "0"}) == 6


async def test_frames_that_cannot_be_decoded_are_counted(bench: Bench, clip: Clip):
    task = task_for(clip)
    result = await bench.restore(replace(task, frame_pts=(*task.frame_pts[:-1], task.frame_pts[-1] + 7)), packets_of(clip))
    assert result.concealed_frames == 1
    assert bench.registry.get_sample_value("seedvr2_frames_concealed_total") == 1


async def test_by_order_takes_frames_as_they_come(bench: Bench, clip: Clip):
    task = task_for(clip, by_order=True)
    stamps = tuple(7 + 3 * i for i in range(12))
    unstamped = replace(clip, packets=tuple(replace(p, pts=None) for p in clip.packets))
    result = await bench.restore(replace(task, frame_pts=stamps), packets_of(unstamped))
    assert result.concealed_frames == 0
    assert [f.pts for e in bench.segments for f in decoded(e.data)] == list(stamps)


@pytest.mark.parametrize("wish", ["die", "no-memory"])
async def test_what_happens_to_the_rank_is_the_spans_error(bench: Bench, clip: Clip, wish: str):
    (bench.wishes / wish).touch()
    with pytest.raises(ServiceError) as caught:
        await bench.restore(task_for(clip), packets_of(clip))
    assert type(caught.value) is {"die": WorkerBroken, "no-memory": GpuOutOfMemory}[wish]


async def test_garbage_is_an_invalid_video_and_the_rank_goes_on(bench: Bench, clip: Clip):
    garbage = replace(clip, packets=tuple(replace(p, data=b"\x07" * 100) for p in clip.packets))
    with pytest.raises(InvalidVideo, match="None of the 12 frames"):
        await bench.restore(task_for(clip), packets_of(garbage))
    assert (await bench.restore(task_for(clip), packets_of(clip))).frames == 12
    assert bench.registry.get_sample_value("seedvr2_rank_starts_total") == 1


@pytest.mark.parametrize(
    ("number", "error", "words"),
    [
        (signal.SIGSEGV, InvalidVideo, "decoder failed .*SIGSEGV"),
        (signal.SIGKILL, WorkerBroken, "perhaps the machine has no memory"),
    ],
)
async def test_a_decoder_that_dies_costs_its_span(
    bench: Bench, clip: Clip, number: signal.Signals, error: type[ServiceError], words: str
):
    (bench.wishes / "hold").touch()
    restoring = asyncio.create_task(bench.restore(task_for(clip), packets_of(clip)))
    async with asyncio.timeout(20):
        while not bench.events:
            await asyncio.sleep(0.02)
    (decoder,) = (p for p in psutil.Process().children() if "services.inference.video.child" in p.cmdline())
    decoder.send_signal(number)
    (bench.wishes / "hold").unlink()
    with pytest.raises(error, match=words):
        await restoring
    assert (await bench.restore(task_for(clip), packets_of(clip))).frames == 12


async def test_packets_that_do_not_fit_together_are_the_spans_error(bench: Bench, clip: Clip):
    with pytest.raises(ChunkOutOfOrder, match="no"):
        await bench.restore(task_for(clip), packets_of(replace(clip, packets=clip.packets[:2]), ChunkOutOfOrder("no")))


async def test_a_span_that_does_not_move_is_given_up(bench: Bench, clip: Clip):
    with pytest.raises(DeadlinePassed, match=r"Nothing moved for 0\.5 s"):
        await bench.restore(replace(task_for(clip), stall_timeout_s=0.5), no_end(clip))
    assert (await bench.restore(task_for(clip), packets_of(clip))).frames == 12


async def test_a_span_is_done_before_packets_that_nobody_needs(bench: Bench, clip: Clip):
    task = task_for(clip, end=4)

    async def endless() -> AsyncIterator[Packet]:
        while True:
            for packet in clip.packets:
                yield packet

    assert (await asyncio.wait_for(bench.restore(task, endless()), 20)).frames == 4


def test_ranks_are_told_all_of_a_plan_that_they_have_a_word_for(clip: Clip):
    plan = replace(
        task_for(clip).plan, colour="lab", input_noise=0.25, latent_noise=0.5, steps=3, window_latents=6, overlap_latents=2,
        noise="one-sha256-v1", seed=9,
    )  # fmt: skip
    order = asdict(rank_order(replace(task_for(clip), plan=plan), 1, Path("socket"), Setting(slice_latents=1)))
    shared = asdict(plan).keys() & order.keys()
    assert shared >= {"colour", "input_noise", "latent_noise", "steps", "window_latents", "overlap_latents", "noise", "seed"}
    assert {name: order[name] for name in shared} == {name: getattr(plan, name) for name in shared}
