import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.common.channel import Channel
from services.common.errors import GpuOutOfMemory, ServiceError, SettingsError, WorkerBroken
from services.common.metrics import InferenceMetrics
from services.inference.frames import send_frames
from services.inference.groups import Group, Groups, choose_layout, gpu_count, load_orders
from services.inference.layout import ParallelLayout
from services.inference.orders import WAITING, FramesEnded, Order
from tests.unit.inference.quick_groups import order_of, quick_groups, rank_processes, until

PICTURE = np.zeros((1, 2, 2, 3), np.uint8)


@contextlib.asynccontextmanager
async def running(
    directory: Path, ranks: int = 1, sequence: int = 1, *, registry: CollectorRegistry | None = None, start_s: float = 20,
    stop_s: float = 10,
) -> AsyncIterator[Groups]:  # fmt: skip
    metrics = InferenceMetrics(registry or CollectorRegistry())
    groups = quick_groups(directory, metrics, ranks=ranks, sequence=sequence, start_s=start_s, stop_s=stop_s)
    groups.start()
    try:
        yield groups
    finally:
        await groups.close()


async def messages_of(order: Order) -> list[str]:
    async with asyncio.timeout(20):
        return [message.kind async for message in order.messages()]


async def error_of(order: Order) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await messages_of(order)
    return caught.value


async def send_and_end(frames: Channel) -> list[str]:
    """Send a frame and the end; kinds of what comes back."""
    send_frames(frames, PICTURE)
    frames.send("end")
    return [(await asyncio.to_thread(frames.receive)).kind for _ in range(2)]


async def restore(group: Group, path: Path) -> list[str]:
    """A span of one frame, seen through; kinds of what the ranks say."""
    async with order_of(group, path) as (order, frames):
        assert await send_and_end(frames) == ["frames", "end"]
        return await messages_of(order)


@contextlib.asynccontextmanager
async def held(group: Group, directory: Path) -> AsyncIterator[Order]:
    """A span in the middle of which the ranks stand still."""
    (directory / "hold").touch()
    async with order_of(group, directory / "held-frames") as (order, frames):
        send_frames(frames, PICTURE)
        while not (directory / "held").exists():
            await asyncio.sleep(0.01)
        yield order
    for name in ("hold", "held", "held-frames"):
        (directory / name).unlink()


async def test_ranks_become_ready_and_end_with_their_owner(tmp_path: Path):
    registry = CollectorRegistry()
    async with running(tmp_path, 2, registry=registry) as groups:
        assert (groups.ready, groups.has_failed, groups.detail) == (None, False, "rank 0: loading the model")
        await until(groups, lambda: groups.ready is not None)
        assert groups.detail == ""
        children = rank_processes()
        assert len(children) == 2
        assert registry.get_sample_value("seedvr2_rank_starts_total") == 2
        assert (registry.get_sample_value("seedvr2_rank_memory_bytes", {"rank": "1"}) or 0) > 1 << 20
        assert registry.get_sample_value("seedvr2_gpu_memory_bytes", {"rank": "0"}) == 5
    assert not any(p.is_running() for p in children)


async def test_a_rank_that_is_killed_is_replaced(tmp_path: Path):
    async with running(tmp_path) as groups:
        await until(groups, lambda: groups.ready is not None)
        (child,) = rank_processes()
        os.kill(child.pid, signal.SIGKILL)
        await until(groups, lambda: groups.ready is None)
        assert groups.has_failed
        assert groups.detail == "rank 0: it was ended by SIGKILL"
        await until(groups, lambda: groups.ready is not None)
        assert not groups.has_failed


async def test_a_rank_that_cannot_load_says_why_and_tries_again(tmp_path: Path):
    (tmp_path / "broken").touch()
    async with running(tmp_path) as groups:
        await until(groups, lambda: groups.has_failed)
        assert groups.detail == "rank 0: dit.safetensors is missing"
        (tmp_path / "broken").unlink()
        await until(groups, lambda: groups.ready is not None)


@pytest.mark.parametrize("sequence", [1, 2])
async def test_ranks_that_differ_are_not_ready(tmp_path: Path, sequence: int):
    (tmp_path / "other").touch()
    async with running(tmp_path, 2, sequence) as groups:
        await until(groups, lambda: all(rank.ready for rank in groups.ranks))
        assert groups.ready is None
        assert groups.has_failed
        assert "differ" in groups.detail


@pytest.mark.parametrize("sequence", [1, 2])
async def test_ranks_that_do_not_stop_are_ended(tmp_path: Path, sequence: int):
    (tmp_path / "deaf").touch()
    async with running(tmp_path, sequence, sequence, stop_s=0.5) as groups:
        await until(groups, lambda: groups.ready is not None)
        before = rank_processes()
        async with held(groups.all[0], tmp_path) as order:
            stopping = asyncio.create_task(groups.all[0].stop(order))
            who = "it" if sequence == 1 else "its group"
            words = f"Rank 0 of the worker was lost in the middle of a span: {who} did not stop within 0.5 s and was ended."
            assert str(await error_of(order)) == words
            await stopping
        await until(groups, lambda: groups.ready is not None)
        assert not any(p.is_running() for p in before)


async def test_a_group_that_is_not_there_takes_nothing(tmp_path: Path):
    (tmp_path / "broken").touch()
    async with running(tmp_path) as groups:
        await until(groups, lambda: groups.has_failed)
        with pytest.raises(WorkerBroken, match=r"Rank 0 is not ready: dit\.safetensors is missing"):
            async with order_of(groups.all[0], tmp_path / "frames"):
                pass


async def test_a_group_is_ready_when_all_its_ranks_are(tmp_path: Path):
    (tmp_path / "late-1").touch()
    async with running(tmp_path, 2, 2) as groups:
        await until(groups, lambda: groups.ranks[0].ready is not None)
        assert (groups.ready, groups.detail) == (None, "rank 1: loading the model")
        (tmp_path / "late-1").unlink()
        await until(groups, lambda: groups.ready is not None)


async def test_a_group_of_which_a_rank_does_not_become_ready_starts_again(tmp_path: Path):
    (tmp_path / "late-1").touch()
    async with running(tmp_path, 2, 2, start_s=1.5) as groups:
        await until(groups, lambda: groups.has_failed)
        assert groups.detail == "rank 1: it was not ready after 1.5 s"
        (tmp_path / "late-1").unlink()
        await until(groups, lambda: groups.ready is not None)


async def test_all_ranks_of_a_group_go_through_a_span(tmp_path: Path):
    async with running(tmp_path, 3, 3) as groups:
        await until(groups, lambda: groups.ready is not None)
        assert await restore(groups.all[0], tmp_path / "first") == ["progress", "done"]
        async with order_of(groups.all[0], tmp_path / "second") as (order, frames):
            await send_and_end(frames)
            done = [message async for message in order.messages()][-1]
        assert done.fields["peak_memory_bytes"] == 13, "that of the rank that needed most"


@pytest.mark.parametrize("victim", [0, 1])
async def test_a_killed_rank_ends_the_span_on_all_ranks_and_the_group_comes_back(tmp_path: Path, victim: int):
    async with running(tmp_path, 2, 2) as groups:
        await until(groups, lambda: groups.ready is not None)
        before = rank_processes()
        async with held(groups.all[0], tmp_path) as order:
            before[victim].kill()
            error = await error_of(order)
            assert order.is_over
        assert isinstance(error, WorkerBroken)
        assert str(error) == f"Rank {victim} of the worker was lost in the middle of a span: it was ended by SIGKILL."
        await until(groups, lambda: groups.ready is not None)
        assert not any(p.is_running() for p in before)
        assert len(rank_processes()) == 2
        assert await restore(groups.all[0], tmp_path / "next") == ["progress", "done"]


@pytest.mark.parametrize("victim", [0, 1])
async def test_a_rank_that_hangs_is_ended_with_its_group(tmp_path: Path, victim: int):
    async with running(tmp_path, 2, 2, stop_s=0.5) as groups:
        await until(groups, lambda: groups.ready is not None)
        before = rank_processes()
        async with held(groups.all[0], tmp_path) as order:
            before[victim].suspend()
            await groups.all[0].stop(order)
            assert isinstance(await error_of(order), WorkerBroken)
        await until(groups, lambda: groups.ready is not None)
        assert not any(p.is_running() for p in before)
        assert await restore(groups.all[0], tmp_path / "next") == ["progress", "done"]


async def test_memory_that_one_rank_lacks_ends_the_span_in_words_and_the_group_comes_back(tmp_path: Path):
    (tmp_path / "no-memory-1").touch()
    async with running(tmp_path, 2, 2) as groups:
        await until(groups, lambda: groups.ready is not None)
        before = rank_processes()
        async with order_of(groups.all[0], tmp_path / "frames") as (order, frames):
            send_frames(frames, PICTURE)
            error = await error_of(order)
        assert isinstance(error, GpuOutOfMemory)
        assert str(error) == "Rank 1 of the worker ran out of memory: it doesn't fit."
        (tmp_path / "no-memory-1").unlink()
        await until(groups, lambda: groups.ready is not None)
        assert not any(p.is_running() for p in before)
        assert await restore(groups.all[0], tmp_path / "next") == ["progress", "done"]


async def test_memory_that_a_rank_alone_lacks_costs_the_span_and_not_the_process(tmp_path: Path):
    (tmp_path / "no-memory").touch()
    async with running(tmp_path) as groups:
        await until(groups, lambda: groups.ready is not None)
        before = rank_processes()
        async with order_of(groups.all[0], tmp_path / "frames") as (order, frames):
            send_frames(frames, PICTURE)
            assert str(await error_of(order)) == "it doesn't fit"
        (tmp_path / "no-memory").unlink()
        assert await restore(groups.all[0], tmp_path / "next") == ["progress", "done"]
        assert rank_processes() == before


async def test_of_ranks_that_are_lost_together_the_one_that_took_the_others_along_is_named(tmp_path: Path):
    for wish in ("break-0", "die-1"):
        (tmp_path / wish).touch()
    async with running(tmp_path, 2, 2) as groups:
        await until(groups, lambda: groups.ready is not None)
        async with order_of(groups.all[0], tmp_path / "frames") as (order, frames):
            send_frames(frames, PICTURE)
            assert "Rank 1 of the worker was lost in the middle of a span: it was ended by SIGKILL" in str(await error_of(order))


async def test_a_cancelled_span_is_over_on_all_ranks_and_spares_them(tmp_path: Path):
    async with running(tmp_path, 2, 2) as groups:
        await until(groups, lambda: groups.ready is not None)
        before = rank_processes()
        async with held(groups.all[0], tmp_path) as order:
            await groups.all[0].stop(order)
            assert order.is_over
            with pytest.raises(FramesEnded):
                await messages_of(order)
        assert await restore(groups.all[0], tmp_path / "next") == ["progress", "done"]
        assert rank_processes() == before


@pytest.mark.parametrize("sequence", [1, 2])
async def test_a_preview_is_restored_in_the_middle_of_a_span_that_hears_that_it_waits(tmp_path: Path, sequence: int):
    async with running(tmp_path, sequence, sequence) as groups:
        group = groups.all[0]
        await until(groups, lambda: groups.ready is not None)
        async with order_of(group, tmp_path / "span") as (span, frames):
            send_frames(frames, PICTURE)
            await asyncio.to_thread(frames.receive)
            async with order_of(group, tmp_path / "preview", preview=True) as (preview, short):
                assert await send_and_end(short) == ["frames", "end"]
                assert "done" in await messages_of(preview)
            assert not span.is_over
            frames.send("end")
            assert await messages_of(span) == ["progress", WAITING, "done"]


@pytest.mark.parametrize("sequence", [1, 2])
async def test_a_span_that_is_cancelled_during_a_preview_ends_after_it(tmp_path: Path, sequence: int):
    async with running(tmp_path, sequence, sequence, stop_s=0.5) as groups:
        group = groups.all[0]
        await until(groups, lambda: groups.ready is not None)
        before = rank_processes()
        async with order_of(group, tmp_path / "span") as (span, frames):
            send_frames(frames, PICTURE)
            await asyncio.to_thread(frames.receive)
            async with order_of(group, tmp_path / "preview", preview=True) as (preview, short):
                send_frames(short, PICTURE)
                await asyncio.to_thread(short.receive)
                stopping = asyncio.create_task(group.stop(span))
                await asyncio.sleep(1)
                assert not stopping.done()
                short.send("end")
                assert (await messages_of(preview))[-1] == "done"
            await stopping
            assert span.is_over
        assert rank_processes() == before


async def test_a_lost_rank_ends_a_span_and_the_preview_in_its_middle(tmp_path: Path):
    async with running(tmp_path) as groups:
        await until(groups, lambda: groups.ready is not None)
        async with order_of(groups.all[0], tmp_path / "span") as (span, frames):
            send_frames(frames, PICTURE)
            await asyncio.to_thread(frames.receive)
            async with order_of(groups.all[0], tmp_path / "preview", preview=True) as (preview, _):
                rank_processes()[0].kill()
                assert isinstance(await error_of(preview), WorkerBroken)
                assert isinstance(await error_of(span), WorkerBroken)


async def test_frames_that_end_early_end_the_span_on_all_ranks_and_spare_them(tmp_path: Path):
    async with running(tmp_path, 2, 2) as groups:
        await until(groups, lambda: groups.ready is not None)
        before = rank_processes()
        async with order_of(groups.all[0], tmp_path / "frames") as (order, frames):
            send_frames(frames, PICTURE)
            await asyncio.to_thread(frames.receive)
        with pytest.raises(FramesEnded):
            await messages_of(order)
        assert await restore(groups.all[0], tmp_path / "next") == ["progress", "done"]
        assert rank_processes() == before


async def test_a_lost_rank_leaves_other_groups_alone(tmp_path: Path):
    async with running(tmp_path, 4, 2) as groups:
        await until(groups, lambda: groups.ready is not None)
        before = rank_processes()
        others = before[2:]
        async with order_of(groups.all[1], tmp_path / "frames") as (order, frames):
            before[1].kill()
            await until(groups, lambda: groups.ready is None)
            assert groups.all[1].ready
            assert await send_and_end(frames) == ["frames", "end"]
            assert await messages_of(order) == ["progress", "done"]
        await until(groups, lambda: groups.ready is not None)
        assert all(p.is_running() for p in others)
        assert len(rank_processes()) == 4


async def test_who_waits_for_a_span_hears_that_the_worker_stops(tmp_path: Path):
    async with running(tmp_path, 2, 2) as groups:
        await until(groups, lambda: groups.ready is not None)
        async with held(groups.all[0], tmp_path) as order:
            await groups.close()
            assert "was stopped" in str(await error_of(order))


def test_cores_are_divided_among_the_ranks():
    layout = ParallelLayout(world_size=2, sequence=1)
    orders = load_orders(model="", directory=Path("/m"), sha256={"a": "1"}, device="cuda", dtype="auto", layout=layout, threads=0)
    assert all(order.sha256 == {"a": "1"} for (order,) in orders)
    assert {order.threads for (order,) in orders} == {max(1, len(os.sched_getaffinity(0)) // 2)}


def test_ranks_have_a_device_each_and_a_place_in_their_group():
    layout = ParallelLayout(world_size=4, sequence=2)
    orders = load_orders(model="", directory=Path("/m"), sha256={}, device="cuda", dtype="auto", layout=layout, threads=1)
    assert [[(o.index, o.place, o.group_size) for o in group] for group in orders] == [
        [(0, 0, 2), (1, 1, 2)],
        [(2, 0, 2), (3, 1, 2)],
    ]
    assert {order.neighbours for group in orders for order in group} == {3}


def test_ranks_of_several_machines_have_the_gpus_and_neighbours_of_their_own():
    layout = choose_layout(device="cuda", ranks=2, sequence=0, machines=2)
    (orders,) = load_orders(model="", directory=Path("/m"), sha256={}, device="cuda", dtype="auto", layout=layout, threads=1)
    assert [(o.index, o.place, o.machine, o.device_index) for o in orders] == [
        (0, 0, 0, 0),
        (1, 1, 0, 1),
        (2, 2, 1, 0),
        (3, 3, 1, 1),
    ]
    assert {(o.group_size, o.neighbours, o.machines) for o in orders} == {(4, 1, 2)}


def test_without_a_wish_all_gpus_share_a_span_and_a_cpu_has_one_rank(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert choose_layout(device="cpu", ranks=0, sequence=0) == ParallelLayout(world_size=1, sequence=1)
    assert choose_layout(device="auto", ranks=0, sequence=0) == ParallelLayout(world_size=3, sequence=3)


def test_gpus_that_cannot_be_divided_are_refused_in_words(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    with pytest.raises(SettingsError, match="3 ranks can't be divided into groups of 2; sequence must be one of 1, 3"):
        choose_layout(device="auto", ranks=0, sequence=2)


@pytest.mark.parametrize(("visible", "count"), [("", 1), ("3", 1), ("GPU-a, GPU-b", 2)])
def test_gpus_that_are_hidden_are_not_counted(monkeypatch: pytest.MonkeyPatch, visible: str, count: int):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_count() == count
