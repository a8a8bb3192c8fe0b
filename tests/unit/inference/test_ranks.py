import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import WorkerBroken
from services.common.metrics import InferenceMetrics
from services.inference.messages import LoadOrder
from services.inference.ranks import RankLimits, Ranks, gpu_count, load_orders
from tests.unit.inference import quick_rank
from tests.unit.inference.test_restoring import order_of


@contextlib.asynccontextmanager
async def running(directory: Path, count: int = 1, registry: CollectorRegistry | None = None) -> AsyncIterator[Ranks]:
    orders = [LoadOrder(model="", directory=str(directory), device="cpu", dtype="auto", index=i, threads=1) for i in range(count)]
    metrics = InferenceMetrics(registry or CollectorRegistry())
    ranks = Ranks(orders, RankLimits(start_s=20, stop_s=0.5), metrics, quick_rank.MODULE)
    ranks.start()
    try:
        yield ranks
    finally:
        await ranks.close()


async def until(ranks: Ranks, condition: Callable[[], bool]) -> None:
    changed = asyncio.Event()
    ranks.on_change(changed.set)
    async with asyncio.timeout(20):
        while not condition():
            await changed.wait()
            changed.clear()


async def test_ranks_become_ready_and_end_with_their_owner(tmp_path: Path):
    registry = CollectorRegistry()
    async with running(tmp_path, 2, registry) as ranks:
        assert (ranks.ready, ranks.has_failed, ranks.detail) == (None, False, "rank 0: loading the model")
        await until(ranks, lambda: ranks.ready is not None)
        assert ranks.detail == ""
        children = [p for p in psutil.Process().children() if quick_rank.MODULE in p.cmdline()]
        assert len(children) == 2
        assert registry.get_sample_value("seedvr2_rank_starts_total") == 2
        assert (registry.get_sample_value("seedvr2_rank_memory_bytes", {"rank": "1"}) or 0) > 1 << 20
        assert registry.get_sample_value("seedvr2_gpu_memory_bytes", {"rank": "0"}) == 5
    assert not any(p.is_running() for p in children)


async def test_a_rank_that_is_killed_is_replaced(tmp_path: Path):
    async with running(tmp_path) as ranks:
        await until(ranks, lambda: ranks.ready is not None)
        (child,) = (p for p in psutil.Process().children() if quick_rank.MODULE in p.cmdline())
        os.kill(child.pid, signal.SIGKILL)
        await until(ranks, lambda: ranks.ready is None)
        assert ranks.has_failed
        assert ranks.detail == "rank 0: it was ended by SIGKILL"
        await until(ranks, lambda: ranks.ready is not None)
        assert not ranks.has_failed


async def test_a_rank_that_cannot_load_says_why_and_tries_again(tmp_path: Path):
    (tmp_path / "broken").touch()
    async with running(tmp_path) as ranks:
        await until(ranks, lambda: ranks.has_failed)
        assert ranks.detail == "rank 0: dit.safetensors is missing"
        (tmp_path / "broken").unlink()
        await until(ranks, lambda: ranks.ready is not None)


async def test_ranks_that_differ_are_not_ready(tmp_path: Path):
    (tmp_path / "other").touch()
    async with running(tmp_path, 2) as ranks:
        await until(ranks, lambda: all(rank.ready for rank in ranks.all))
        assert ranks.ready is None
        assert ranks.has_failed
        assert "differ" in ranks.detail


async def test_a_rank_that_does_not_stop_is_killed(tmp_path: Path):
    for wish in ("hold", "deaf"):
        (tmp_path / wish).touch()
    async with running(tmp_path) as ranks:
        await until(ranks, lambda: ranks.ready is not None)
        async with order_of(ranks.all[0], tmp_path / "frames") as (order, _):
            stopping = asyncio.create_task(ranks.all[0].stop(order))
            with pytest.raises(WorkerBroken, match=r"Rank 0 .* was lost in the middle of a span: it was ended by SIGKILL"):
                [message async for message in order.messages()]
            await stopping


async def test_a_rank_that_is_not_there_takes_nothing(tmp_path: Path):
    (tmp_path / "broken").touch()
    async with running(tmp_path) as ranks:
        await until(ranks, lambda: ranks.has_failed)
        with pytest.raises(WorkerBroken, match=r"Rank 0 is not ready: dit\.safetensors is missing"):
            async with order_of(ranks.all[0], tmp_path / "frames"):
                pass


def test_cores_are_divided_among_the_ranks():
    orders = load_orders(model="nano", directory=Path("/m"), sha256={"a": "1"}, device="cuda", dtype="auto", ranks=2, threads=0)
    assert [o.index for o in orders] == [0, 1]
    assert all(o.sha256 == {"a": "1"} for o in orders)
    assert {o.threads for o in orders} == {max(1, len(os.sched_getaffinity(0)) // 2)}


def test_a_cpu_has_one_rank(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    assert len(load_orders(model="nano", directory=Path("/m"), sha256={}, device="cpu", dtype="auto", ranks=0, threads=3)) == 1
    assert len(load_orders(model="nano", directory=Path("/m"), sha256={}, device="auto", dtype="auto", ranks=0, threads=3)) == 3


@pytest.mark.parametrize(("visible", "count"), [("", 1), ("3", 1), ("GPU-a, GPU-b", 2)])
def test_gpus_that_are_hidden_are_not_counted(monkeypatch: pytest.MonkeyPatch, visible: str, count: int):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert gpu_count() == count
