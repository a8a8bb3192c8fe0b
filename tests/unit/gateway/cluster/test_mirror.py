import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import ClusterForbidden
from services.common.metrics import GatewayMetrics
from services.gateway.cluster.mirror import Mirror
from tests.fakes.kubernetes.cluster import Cluster, pod


class Seen:
    """What a mirror shows, and what it counted."""

    def __init__(self) -> None:
        self.addresses: list[str] | None = None
        self.registry = CollectorRegistry()
        self.metrics = GatewayMetrics(self.registry)

    def show(self, objects: list[dict[str, Any]]) -> None:
        self.addresses = sorted(e["addresses"][0] for each in objects for e in each["endpoints"] or ())

    def count(self, event: str) -> float:
        return (
            self.registry.get_sample_value("seedvr2_cluster_watch_events_total", {"objects": "endpointslices", "event": event})
            or 0
        )

    async def until(self, wanted: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not wanted():
                await asyncio.sleep(0.01)

    async def shows(self, *addresses: str) -> None:
        await self.until(lambda: self.addresses == sorted(addresses))


@contextlib.asynccontextmanager
async def mirrored(cluster: Cluster, watch_s: int = 60) -> AsyncIterator[Seen]:
    seen = Seen()
    mirror = Mirror(
        cluster.api, cluster.slices, cluster.selector, on_change=seen.show, events=seen.metrics.cluster_watch, watch_s=watch_s
    )
    running = asyncio.create_task(mirror.run())
    try:
        await seen.until(lambda: seen.addresses is not None)
        yield seen
    finally:
        running.cancel()
        await asyncio.wait({running})


async def test_what_changes_is_seen(cluster: Cluster):
    await cluster.write_slice("a", [pod("10.0.0.1")])
    async with mirrored(cluster) as seen:
        await seen.shows("10.0.0.1")
        await cluster.write_slice("a", [pod("10.0.0.1"), pod("10.0.0.2")])
        await cluster.write_slice("b", [pod("10.0.0.3")])
        await seen.shows("10.0.0.1", "10.0.0.2", "10.0.0.3")
        await cluster.write_slice("a", [], ports=None)
        await seen.shows("10.0.0.3")
        await cluster.delete_slice("b")
        await seen.shows()
        assert seen.count("list") == 1


async def test_a_watch_that_ends_goes_on_where_it_was(cluster: Cluster):
    async with mirrored(cluster, watch_s=1) as seen:
        await seen.until(lambda: seen.count("bookmark") >= 2)
        await cluster.write_slice("a", [pod("10.0.0.1")])
        await seen.shows("10.0.0.1")
        assert seen.count("list") == 1


async def test_a_connection_that_breaks_loses_nothing(cluster: Cluster):
    fake = cluster.faked()
    async with mirrored(cluster) as seen:
        await seen.until(lambda: fake.cut_watches() == 1)
        await cluster.write_slice("a", [pod("10.0.0.1")])
        await seen.shows("10.0.0.1")
        assert (seen.count("list"), seen.count("added")) == (1, 1)


async def test_a_forgotten_version_is_listed_again(cluster: Cluster):
    fake = cluster.faked()
    async with mirrored(cluster) as seen:
        await seen.until(lambda: fake.count("watch", "endpointslices") == 1)
        fake.go_away()
        fake.compact()
        fake.come_back()
        await seen.until(lambda: seen.count("expired") == 1)
        await cluster.write_slice("a", [pod("10.0.0.1")])
        await seen.shows("10.0.0.1")
        assert seen.count("list") == 2


async def test_what_was_seen_stands_while_the_server_is_away(cluster: Cluster):
    fake = cluster.faked()
    await cluster.write_slice("a", [pod("10.0.0.1")])
    async with mirrored(cluster) as seen:
        fake.go_away()
        await seen.until(lambda: seen.count("lost") >= 2)
        assert seen.addresses == ["10.0.0.1"]
        fake.come_back()
        await cluster.write_slice("a", [pod("10.0.0.2")])
        await seen.shows("10.0.0.2")


async def test_a_server_that_fails_on_and_on_is_listed_again(cluster: Cluster):
    fake = cluster.faked()
    async with mirrored(cluster) as seen:
        await seen.until(lambda: fake.count("watch", "endpointslices") == 1)
        fake.failures += [500, 503, 500, 500]
        fake.cut_watches()
        await seen.until(lambda: seen.count("list") == 2)


async def test_who_may_not_list_is_told_at_once(cluster: Cluster):
    cluster.faked().forbidden.add(("list", "endpointslices"))
    mirror = Mirror(cluster.api, cluster.slices, "", on_change=lambda _: None, events=Seen().metrics.cluster_watch)
    with pytest.raises(ClusterForbidden):
        await mirror.run()
