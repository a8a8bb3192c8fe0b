import asyncio
import contextlib

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import SettingsError
from services.common.metrics import GatewayMetrics
from services.gateway.fleet.endpoints import Endpoint
from services.gateway.fleet.sliced import Sliced
from tests.fakes.kubernetes.cluster import Cluster, pod


def finder(cluster: Cluster) -> Sliced:
    return Sliced(cluster.api, cluster.selector, events=GatewayMetrics(CollectorRegistry()).cluster_watch)


async def test_workers_are_found_by_their_slices_and_shown_when_something_about_them_changes(cluster: Cluster):
    shown: asyncio.Queue[list[Endpoint]] = asyncio.Queue()
    running = asyncio.create_task(finder(cluster).run(lambda endpoints: shown.put_nowait(list(endpoints))))

    async def next_shown() -> list[tuple[str, str]]:
        return [(e.address, e.known_as) for e in await asyncio.wait_for(shown.get(), 20)]

    try:
        assert await next_shown() == []
        await cluster.write_slice("a", [pod("10.0.0.1", "000")])
        assert await next_shown() == [("10.0.0.1:50061", "starting")]
        await cluster.write_slice(
            "a", [pod("10.0.0.1", "000")], ports=[{"name": "grpc", "port": 50061}, {"name": "x", "port": 1}]
        )
        await cluster.write_slice("a", [pod("10.0.0.1", "110")])
        assert await next_shown() == [("10.0.0.1:50061", "")]
        await cluster.write_slice("a", [pod("10.0.0.1", "011")])
        assert await next_shown() == [("10.0.0.1:50061", "draining")]
        await cluster.write_slice("a", [], ports=None)
        assert await next_shown() == []
    finally:
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running


async def test_a_gateway_that_may_not_list_slices_is_told_what_is_missing(cluster: Cluster):
    cluster.faked().forbidden.add(("list", "endpointslices"))
    with pytest.raises(SettingsError, match='cannot list resource "endpointslices"'):
        await finder(cluster).run(lambda _: None)
