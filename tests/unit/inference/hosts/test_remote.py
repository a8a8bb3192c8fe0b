"""Groups of ranks over real calls to rank hosts, without models."""

import asyncio
import contextlib
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import ServiceError, WorkerBroken
from services.common.metrics import InferenceMetrics
from services.common.pb.seedvr2.v1 import rank_host_pb2 as pb
from services.common.pb.seedvr2.v1 import rank_host_pb2_grpc
from services.common.rpc.server import Server
from services.inference.frames import send_frames
from services.inference.groups import Group
from services.inference.hosts.servicer import SERVICE_NAME
from services.inference.orders import Order
from tests.s3 import free_ports
from tests.unit.inference.hosts.quick_hosts import QuickHost, no_ranks, running, spread_groups
from tests.unit.inference.quick_groups import order_of, rank_processes, until

# Several batches of several messages each.
PICTURES = np.random.default_rng(1).integers(0, 255, (8, 256, 384, 3), np.uint8)


async def restore(group: Group, path: Path) -> list[str]:
    """A span of a few frames, seen through; kinds of what the ranks say."""
    async with order_of(group, path) as (order, frames):
        for _ in range(3):
            send_frames(frames, PICTURES)
            assert (await asyncio.to_thread(frames.receive)).payload == PICTURES.tobytes()
        frames.send("end")
        assert (await asyncio.to_thread(frames.receive)).kind == "end"
        async with asyncio.timeout(20):
            return [message.kind async for message in order.messages()]


async def error_of(order: Order) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        async with asyncio.timeout(20):
            [message async for message in order.messages()]
    return caught.value


async def test_all_ranks_of_three_machines_go_through_a_span(tmp_path: Path):
    registry = CollectorRegistry()
    async with QuickHost().serving() as first, QuickHost().serving() as second:
        groups = spread_groups(tmp_path, [first.address, second.address], ranks=2, metrics=InferenceMetrics(registry))
        async with running(groups):
            await until(groups, lambda: groups.ready is not None)
            assert len(rank_processes()) == 6
            assert await restore(groups.all[0], tmp_path / "frames") == ["progress", "progress", "progress", "done"]
            assert registry.get_sample_value("seedvr2_rank_starts_total") == 6
            assert registry.get_sample_value("seedvr2_rank_memory_bytes", {"rank": "2"}) is None, "its machine tells it"
            for host, rank in ((first, "3"), (second, "4")):
                assert host.registry.get_sample_value("seedvr2_rank_host_ranks") == 2
                assert (host.registry.get_sample_value("seedvr2_rank_memory_bytes", {"rank": rank}) or 0) > 1 << 20
        await no_ranks()
    assert first.registry.get_sample_value("seedvr2_rank_host_ranks") == 0
    assert first.registry.get_sample_value("seedvr2_rank_memory_bytes", {"rank": "3"}) == 0


@pytest.mark.parametrize(
    ("wish", "words"),
    [
        ("die-1", "Rank 1 of the worker was lost in the middle of a span: it was ended by SIGKILL."),
        ("no-memory-1", "Rank 1 of the worker ran out of memory: it doesn't fit."),
    ],
)
async def test_what_happens_to_a_rank_elsewhere_is_told_as_if_it_were_here(tmp_path: Path, wish: str, words: str):
    (tmp_path / wish).touch()
    async with QuickHost().serving() as host, running(spread_groups(tmp_path, [host.address])) as groups:
        await until(groups, lambda: groups.ready is not None)
        before = rank_processes()
        async with order_of(groups.all[0], tmp_path / "span") as (order, frames):
            send_frames(frames, PICTURES)
            assert str(await error_of(order)) == words
        (tmp_path / wish).unlink()
        await until(groups, lambda: groups.ready is not None)
        assert not any(process.is_running() for process in before)
        assert "done" in await restore(groups.all[0], tmp_path / "next")


@pytest.mark.parametrize(
    ("wish", "detail"), [("broken-1", "rank 1: dit.safetensors is missing"), ("faulty-1", "rank 1: The device failed")]
)
async def test_a_rank_elsewhere_that_cannot_load_says_why(tmp_path: Path, wish: str, detail: str):
    (tmp_path / wish).touch()
    async with QuickHost().serving() as host, running(spread_groups(tmp_path, [host.address])) as groups:
        await until(groups, lambda: groups.has_failed)
        assert groups.detail.startswith(detail)
        assert groups.checks["rank 1 peers"] == "failed: far"


async def test_a_rank_elsewhere_that_talks_gibberish_is_lost(tmp_path: Path):
    async with (
        QuickHost("tests.unit.inference.gibberish_rank").serving() as host,
        running(spread_groups(tmp_path, [host.address])) as groups,
    ):
        await until(groups, lambda: groups.has_failed)
        assert groups.detail.startswith("rank 1: a message of")


async def test_no_rank_starts_before_all_machines_are_there(tmp_path: Path):
    host = QuickHost()
    host.address = f"127.0.0.1:{free_ports(1)[0]}"
    async with running(spread_groups(tmp_path, [host.address])) as groups:
        await until(groups, lambda: "no connection" in groups.detail)
        assert groups.detail == f"rank 1: waiting for the rank host at {host.address}: no connection"
        assert not groups.has_failed, "it has not begun yet"
        assert rank_processes() == []
        async with host.serving():
            await until(groups, lambda: groups.ready is not None)


async def test_a_machine_that_is_lost_costs_the_span_and_is_waited_for(tmp_path: Path):
    host, stack = QuickHost(), contextlib.AsyncExitStack()
    await stack.enter_async_context(host.serving())
    async with stack, running(spread_groups(tmp_path, [host.address])) as groups:
        await until(groups, lambda: groups.ready is not None)
        (tmp_path / "hold").touch()
        async with order_of(groups.all[0], tmp_path / "span") as (order, frames):
            send_frames(frames, PICTURES)
            await stack.aclose()
            error = await error_of(order)
        assert isinstance(error, WorkerBroken)
        assert f"its rank host at {host.address} was lost" in str(error)
        (tmp_path / "hold").unlink()
        await until(groups, lambda: "waiting for the rank host" in groups.detail)
        async with host.serving():
            await until(groups, lambda: groups.ready is not None)
            assert "done" in await restore(groups.all[0], tmp_path / "next")


async def test_a_machine_that_is_about_to_stop_gets_no_other_span(tmp_path: Path):
    async with QuickHost().serving() as host, running(spread_groups(tmp_path, [host.address])) as groups:
        await until(groups, lambda: groups.ready is not None)
        async with order_of(groups.all[0], tmp_path / "span") as (order, frames):
            send_frames(frames, PICTURES)
            await asyncio.to_thread(frames.receive)
            leaving = asyncio.create_task(host.servicer.drain(20))
            await until(groups, lambda: groups.ready is None)
            assert groups.detail == f"rank 1: its rank host at {host.address} is about to stop"
            with pytest.raises(WorkerBroken, match="is not ready"):
                async with order_of(groups.all[0], tmp_path / "other"):
                    pass
            assert not leaving.done()
            frames.send("end")
            async with asyncio.timeout(20):
                assert [message.kind async for message in order.messages()] == ["progress", "done"]
                await leaving
        await until(groups, lambda: "This rank host is about to stop" in groups.detail)
        await no_ranks()


async def test_a_span_that_outlasts_its_machine_is_lost_when_the_time_is_over(tmp_path: Path):
    async with QuickHost().serving() as host, running(spread_groups(tmp_path, [host.address])) as groups:
        await until(groups, lambda: groups.ready is not None)
        async with order_of(groups.all[0], tmp_path / "span") as (order, frames):
            send_frames(frames, PICTURES)
            await asyncio.to_thread(frames.receive)
            await host.servicer.drain(0.2)
            assert "was lost" in str(await error_of(order))


async def test_ranks_elsewhere_end_with_their_worker_and_the_host_serves_the_next_one(tmp_path: Path):
    async with QuickHost().serving() as host:
        async with running(spread_groups(tmp_path, [host.address])) as groups:
            await until(groups, lambda: groups.ready is not None)
        await no_ranks()
        async with running(spread_groups(tmp_path, [host.address])) as groups:
            await until(groups, lambda: groups.ready is not None)


async def test_a_worker_that_comes_later_takes_a_host_over(tmp_path: Path):
    async with QuickHost().serving() as host, running(spread_groups(tmp_path, [host.address])) as first:
        await until(first, lambda: first.ready is not None)
        async with running(spread_groups(tmp_path, [host.address])) as second:
            await until(first, lambda: first.ready is None)
            assert first.detail == f"rank 1: its rank host at {host.address} was lost (Another call took this rank host over)"
            # Or it would take the host back.
            await first.close()
            await until(second, lambda: second.ready is not None)


class OtherVersion(rank_host_pb2_grpc.RankHostServicer):
    async def Live(self, requests: Any, context: Any) -> None:
        await context.write(pb.LiveResponse(hello=pb.HostHello(version="0.0.1")))
        await anext(requests)


async def test_a_host_of_another_version_is_waited_for(tmp_path: Path):
    server = Server("127.0.0.1:0")
    server.add(SERVICE_NAME, lambda each: rank_host_pb2_grpc.add_RankHostServicer_to_server(OtherVersion(), each))
    port = await server.start()
    async with running(spread_groups(tmp_path, [f"127.0.0.1:{port}"])) as groups:
        await until(groups, lambda: "version" in groups.detail)
        assert groups.detail.endswith(f"It is of version 0.0.1, and this worker of {metadata.version('seedvr2')}")
        assert rank_processes() == []
    await server.stop(0)


async def test_a_rank_here_that_is_killed_takes_those_elsewhere_along(tmp_path: Path):
    async with QuickHost().serving() as host, running(spread_groups(tmp_path, [host.address])) as groups:
        await until(groups, lambda: groups.ready is not None)
        before = rank_processes()
        next(each for each in before if each.environ()["SEEDVR2_SERVICE"] == "inference-rank-0").kill()
        await until(groups, lambda: groups.ready is None)
        assert groups.detail == "rank 0: it was ended by SIGKILL"
        await until(groups, lambda: groups.ready is not None)
        assert not any(process.is_running() for process in before)
