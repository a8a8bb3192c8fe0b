"""The engine with real processes, though with a rank that has no model."""

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import (
    DeadlinePassed,
    Draining,
    FingerprintChanged,
    GpuOutOfMemory,
    InvalidOption,
    JobCancelled,
    ModelNotReady,
    QueueFull,
    ServiceError,
    WorkerBroken,
)
from services.common.media import Packet
from services.common.metrics import InferenceMetrics
from services.inference.engine import Engine, SpanRun
from services.inference.messages import SegmentReady, SpanProgress, SpanResult
from services.inference.video.process import VideoLimits, VideoProcesses
from tests.unit.inference.clips import Clip, make_clip, plan_for, read_clip, task_for
from tests.unit.inference.quick_groups import quick_groups, rank_processes


class Worker:
    """An engine and what it needs."""

    def __init__(
        self, directory: Path, *, ranks: int = 1, sequence: int = 1, queue_spans: int = 4, queue_s: float | None = None
    ) -> None:  # fmt: skip
        self.wishes = directory / "model"
        self.wishes.mkdir()
        (directory / "s").mkdir()
        self.registry = CollectorRegistry()
        metrics = InferenceMetrics(self.registry)
        self.engine = Engine(
            model="nano", pool="quick", groups=quick_groups(self.wishes, metrics, ranks=ranks, sequence=sequence),
            videos=VideoProcesses(directory / "s", VideoLimits(memory_bytes=8 << 30, cpu_s=60, encoder_threads=1)),
            queue_spans=queue_spans, metrics=metrics, queue_s=queue_s,
        )  # fmt: skip

    def wish(self, name: str) -> None:
        (self.wishes / name).touch()

    def unwish(self, name: str) -> None:
        (self.wishes / name).unlink()

    async def held(self) -> None:
        """Wait until the rank is in the middle of a span, and stands still."""
        await self.until((self.wishes / "held").exists)

    def submit(self, clip: Clip, deadline_s: float | None = None, **changes: Any) -> SpanRun:
        """The whole clip as one span."""
        status = self.engine.status()
        plan = plan_for(clip, fingerprint=status.fingerprint, model_hash=status.models[0].hash if status.models else "")
        task = replace(task_for(clip, plan=plan), **changes)
        return self.engine.submit(task, packets_of(clip), deadline_s)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():
                await asyncio.sleep(0.01)

    async def serving(self) -> None:
        async with asyncio.timeout(20):
            while not self.engine.serving:
                await self.engine.wait_change()

    def value(self, name: str, **labels: str) -> float | None:
        return self.registry.get_sample_value(name, labels)


@contextlib.asynccontextmanager
async def running(worker: Worker) -> AsyncIterator[Worker]:
    await worker.engine.start()
    try:
        yield worker
    finally:
        await worker.engine.drain(0)
        await worker.engine.close()


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(make_clip(frames=12))


@pytest.fixture
async def worker(tmp_path: Path) -> AsyncIterator[Worker]:
    async with running(Worker(tmp_path)) as found:
        await found.serving()
        yield found


async def packets_of(clip: Clip) -> AsyncIterator[Packet]:
    for packet in clip.packets:
        yield packet


async def result_of(run: SpanRun) -> SpanResult:
    async with asyncio.timeout(20):
        events = [event async for event in run.events]
    assert isinstance(events[-1], SpanResult)
    return events[-1]


async def error_of(run: SpanRun) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await result_of(run)
    return caught.value


async def test_before_the_ranks_are_ready_spans_are_refused(tmp_path: Path, clip: Clip):
    worker = Worker(tmp_path)
    worker.wish("broken")
    async with running(worker):
        assert worker.engine.status().state == "starting"
        with pytest.raises(ModelNotReady, match="loading the model"):
            worker.submit(clip)
        await worker.until(lambda: worker.engine.status().state == "broken")
        with pytest.raises(ModelNotReady, match=r"dit\.safetensors is missing") as caught:
            worker.submit(clip)
        assert caught.value.retry_after_s
        assert worker.engine.status().models == ()
        assert worker.value("seedvr2_ready") == 0


async def test_a_ready_worker_says_what_it_is(worker: Worker):
    status = worker.engine.status()
    assert (status.state, status.pool, status.slots, status.free_slots, status.ranks) == ("ready", "quick", 1, 1, 1)
    assert status.models[0].name == "nano"
    assert {"device", "code", "version", "encoder.x264", "encoder.encoder_threads"} <= set(status.facts)
    assert len(status.fingerprint) == 64
    assert (status.memory_bytes, status.megapixels_per_second) == (1 << 30, 0.5)
    assert worker.value("seedvr2_ready") == 1


async def test_a_span_is_restored_and_measured(worker: Worker, clip: Clip):
    run = worker.submit(clip)
    async with asyncio.timeout(20):
        events = [event async for event in run.events]
    assert [e.segment.first for e in events if isinstance(e, SegmentReady)] == [0, 4, 8]
    assert isinstance(events[-1], SpanResult)
    assert worker.engine.status().megapixels_per_second == events[-1].megapixels_per_second
    assert worker.value("seedvr2_spans_total", outcome="done") == 1
    assert worker.value("seedvr2_span_duration_seconds_count") == 1
    await worker.until(lambda: worker.engine.status().state == "ready")


@pytest.mark.parametrize(
    ("plan", "error"), [({"model": "seedvr2-3b"}, InvalidOption), ({"fingerprint": "x"}, FingerprintChanged)]
)
async def test_what_was_not_planned_for_this_worker_is_refused(
    worker: Worker, clip: Clip, plan: dict[str, str], error: type[ServiceError]
):
    known = worker.engine.status()
    values = {"fingerprint": known.fingerprint, "model_hash": known.models[0].hash} | plan
    with pytest.raises(error):
        worker.submit(clip, plan=plan_for(clip, **values))


async def test_a_span_that_fits_no_device_is_refused_with_the_numbers_before_it_begins(worker: Worker, clip: Clip):
    known = worker.engine.status()
    assert known.models[0].max_output_pixels > 10**6
    values = {"fingerprint": known.fingerprint, "model_hash": known.models[0].hash}
    with pytest.raises(GpuOutOfMemory, match=r"16384×16384 need \d+\.\d GB of memory with nano at the least"):
        worker.submit(clip, plan=replace(plan_for(clip, **values), width=16384, height=16384))
    assert worker.value("seedvr2_out_of_memory_total", outcome="refused") == 1
    assert worker.value("seedvr2_spans_in_flight") == 0


async def test_a_span_that_ran_out_of_memory_is_tried_once_with_less(worker: Worker, clip: Clip):
    worker.wish("no-memory")
    first, second = [await error_of(worker.submit(clip)) for _ in range(2)]
    assert isinstance(first, GpuOutOfMemory)
    assert first.retry_after_s
    assert isinstance(second, GpuOutOfMemory)
    assert second.retry_after_s is None
    assert [worker.value("seedvr2_out_of_memory_total", outcome=o) for o in ("leaner", "failed")] == [1, 1]
    worker.unwish("no-memory")
    assert (await result_of(worker.submit(clip))).frames == 12
    assert worker.value("seedvr2_rank_starts_total") == 1


async def test_what_a_rank_found_out_about_its_device_is_told(worker: Worker):
    assert worker.engine.status().checks == {"rank 0 conv3d": "ok: quick", "rank 0 peers": "failed: far"}
    assert worker.value("seedvr2_device_check_passed", rank="0", check="conv3d") == 1
    assert worker.value("seedvr2_device_check_passed", rank="0", check="peers") == 0
    names = {"device": "quick", "driver": "", "cuda": "", "cudnn": "", "capability": "", "torch": ""}
    assert worker.value("seedvr2_device_info", rank="0", **names) == 1
    assert (worker.value("seedvr2_available_memory_bytes", rank="0") or 0) > 0


async def test_a_device_that_fails_a_check_keeps_the_worker_from_being_ready(tmp_path: Path, clip: Clip):
    worker = Worker(tmp_path)
    worker.wish("faulty")
    async with running(worker):
        await worker.until(lambda: worker.engine.status().state == "broken")
        assert "conv3d: it computes wrongly" in worker.engine.status().detail
        assert worker.value("seedvr2_device_check_passed", rank="0", check="conv3d") == 0
        assert worker.value("seedvr2_ready") == 0
        worker.unwish("faulty")
        await worker.serving()
        assert worker.value("seedvr2_device_check_passed", rank="0", check="conv3d") == 1


async def test_spans_wait_for_each_other_and_too_many_are_refused(worker: Worker, clip: Clip):
    worker.wish("hold")
    runs = [worker.submit(clip) for _ in range(5)]
    await worker.until(lambda: worker.value("seedvr2_queue_spans") == 4)
    assert worker.value("seedvr2_spans_in_flight") == 1
    assert (worker.engine.status().state, worker.engine.status().free_slots) == ("busy", 0)
    with pytest.raises(QueueFull, match="4 spans wait already"):
        worker.submit(clip)
    worker.unwish("hold")
    assert [(await result_of(run)).frames for run in runs] == [12] * 5


async def test_a_preview_goes_before_the_span_that_is_in_work_and_those_that_wait(worker: Worker, clip: Clip):
    worker.wish("hold")
    first, second = worker.submit(clip), worker.submit(clip)
    following = asyncio.create_task(result_of(first))
    await worker.held()
    assert (await result_of(worker.submit(clip, preview=True))).frames == 12
    assert not following.done()
    assert (worker.value("seedvr2_spans_in_flight"), worker.value("seedvr2_queue_spans")) == (1, 1)
    worker.unwish("hold")
    await following
    await result_of(second)


async def test_a_span_that_waits_too_long_is_handed_back_for_another_worker(tmp_path: Path, clip: Clip):
    async with running(Worker(tmp_path, queue_s=0.2)) as worker:
        await worker.serving()
        worker.wish("hold")
        first, second = worker.submit(clip), worker.submit(clip)
        assert isinstance(error := await error_of(second), QueueFull)
        assert error.retry_after_s
        assert worker.value("seedvr2_queue_spans") == 0
        worker.unwish("hold")
        await result_of(first)


async def test_every_rank_takes_a_span(tmp_path: Path, clip: Clip):
    async with running(Worker(tmp_path, ranks=2)) as worker:
        await worker.serving()
        worker.wish("hold")
        runs = [worker.submit(clip), worker.submit(clip)]
        await worker.until(lambda: worker.value("seedvr2_spans_in_flight") == 2)
        assert worker.value("seedvr2_queue_spans") == 0
        worker.unwish("hold")
        assert [(await result_of(run)).frames for run in runs] == [12, 12]


async def test_ranks_that_share_a_span_are_one_slot(tmp_path: Path, clip: Clip):
    async with running(Worker(tmp_path, ranks=2, sequence=2)) as worker:
        await worker.serving()
        status = worker.engine.status()
        assert (status.ranks, status.slots, status.free_slots) == (2, 1, 1)
        worker.wish("hold")
        runs = [worker.submit(clip), worker.submit(clip)]
        await worker.until(lambda: worker.value("seedvr2_queue_spans") == 1)
        assert worker.value("seedvr2_spans_in_flight") == 1
        worker.unwish("hold")
        assert [(await result_of(run)).frames for run in runs] == [12, 12]


async def test_a_rank_that_hangs_costs_its_span_and_its_group_and_no_more(tmp_path: Path, clip: Clip):
    async with running(Worker(tmp_path, ranks=4, sequence=2)) as worker:
        await worker.serving()
        hung, others = worker.submit(clip, stall_timeout_s=1.0), rank_processes()[2:]
        rank_processes()[1].suspend()
        error = await error_of(hung)
        assert (type(error), error.message) == (DeadlinePassed, "Nothing moved for 1 s in the middle of a span; it was given up.")
        await worker.until(lambda: worker.engine.status().state == "broken")
        await worker.serving()
        assert (await result_of(worker.submit(clip))).frames == 12
        assert all(p.is_running() for p in others)
        assert worker.value("seedvr2_rank_starts_total") == 6


async def test_cancelling_frees_the_rank_and_spares_it(worker: Worker, clip: Clip):
    worker.wish("hold")
    run = worker.submit(clip)
    await worker.held()
    run.cancel()
    assert isinstance(await error_of(run), JobCancelled)
    await worker.until(lambda: worker.engine.status().free_slots == 1)
    worker.unwish("hold")
    assert (await result_of(worker.submit(clip))).frames == 12
    assert worker.value("seedvr2_rank_starts_total") == 1
    assert worker.value("seedvr2_spans_total", outcome="cancelled") == 1


async def test_a_span_that_waits_can_be_cancelled(worker: Worker, clip: Clip):
    worker.wish("hold")
    first, second = worker.submit(clip), worker.submit(clip)
    await worker.until(lambda: worker.value("seedvr2_queue_spans") == 1)
    second.cancel()
    assert isinstance(await error_of(second), JobCancelled)
    assert worker.value("seedvr2_queue_spans") == 0
    worker.unwish("hold")
    assert (await result_of(first)).frames == 12


async def test_a_deadline_ends_a_span_and_frees_the_rank(worker: Worker, clip: Clip):
    worker.wish("hold")
    assert isinstance(await error_of(worker.submit(clip, deadline_s=0.5)), DeadlinePassed)
    await worker.until(lambda: worker.engine.status().free_slots == 1)


async def test_a_rank_that_does_not_listen_is_replaced_after_a_cancel(worker: Worker, clip: Clip):
    for name in ("hold", "deaf"):
        worker.wish(name)
    run = worker.submit(clip)
    await worker.held()
    run.cancel()
    await error_of(run)
    await worker.until(lambda: not worker.engine.serving)
    for name in ("hold", "deaf"):
        worker.unwish(name)
    await worker.serving()
    assert worker.value("seedvr2_rank_starts_total") == 2
    assert (await result_of(worker.submit(clip))).frames == 12


async def test_a_dead_rank_costs_its_span_and_sends_the_others_away(worker: Worker, clip: Clip):
    worker.wish("hold")
    running_span, waiting = worker.submit(clip), worker.submit(clip)
    await worker.held()
    (rank,) = rank_processes()
    os.kill(rank.pid, signal.SIGKILL)
    assert isinstance(await error_of(running_span), WorkerBroken)
    assert isinstance(await error_of(waiting), ModelNotReady)
    assert (worker.engine.status().state, worker.engine.serving) == ("broken", False)
    worker.unwish("hold")
    await worker.serving()
    assert (await result_of(worker.submit(clip))).frames == 12


async def test_draining_hands_back_what_waits_and_finishes_what_runs(worker: Worker, clip: Clip):
    worker.wish("hold")
    first, second = worker.submit(clip), worker.submit(clip)
    await worker.until(lambda: worker.value("seedvr2_queue_spans") == 1)
    draining = asyncio.create_task(worker.engine.drain(20))
    assert isinstance(await error_of(second), Draining)
    assert worker.engine.status().state == "draining"
    with pytest.raises(Draining):
        worker.submit(clip)
    worker.unwish("hold")
    assert (await result_of(first)).frames == 12
    await draining


async def test_draining_hands_back_what_does_not_end_in_time(worker: Worker, clip: Clip):
    worker.wish("hold")
    run = worker.submit(clip)
    await worker.until(lambda: worker.value("seedvr2_spans_in_flight") == 1)
    await worker.engine.drain(0.2)
    assert isinstance(await error_of(run), Draining)
    assert worker.value("seedvr2_spans_total", outcome="handed_back") == 1


async def test_who_waits_hears_that_it_waits(worker: Worker, clip: Clip, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("services.inference.engine._WAITING_S", 0.05)
    worker.wish("hold")
    first, second = worker.submit(clip), worker.submit(clip)
    word = await asyncio.wait_for(anext(aiter(second.events)), 10)
    assert isinstance(word, SpanProgress)
    assert (word.stage, word.frames) == ("waiting", 0)
    for run in (first, second):
        run.cancel()
