"""Rank hosts with ranks without a model, and groups of ranks on several machines."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.common.metrics import InferenceMetrics, RankHostMetrics
from services.common.rpc.server import Server
from services.inference.groups import Groups, choose_layout, load_orders
from services.inference.hosts.remote import RemoteHost
from services.inference.hosts.servicer import SERVICE_NAME, RankHostServicer, register
from services.inference.machines import Machines
from services.inference.ranks import RankLimits
from tests.unit.inference import quick_rank
from tests.unit.inference.quick_groups import rank_processes


class QuickHost:
    """A rank host on a port of its own."""

    def __init__(self, module: str = quick_rank.MODULE) -> None:
        self.registry = CollectorRegistry()
        self._metrics = RankHostMetrics(self.registry)
        self._module = module
        self.servicer = RankHostServicer(self._metrics, module)
        self.address = "127.0.0.1:0"

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator["QuickHost"]:
        self.servicer = RankHostServicer(self._metrics, self._module)
        server = Server(self.address)
        server.add(SERVICE_NAME, lambda grpc_server: register(self.servicer, grpc_server))
        self.address = f"127.0.0.1:{await server.start()}"
        try:
            yield self
        finally:
            await server.stop(0)
            # Its ranks end a moment after their call.
            await self.servicer.drain(20)


def spread_groups(directory: Path, hosts: Sequence[str], *, ranks: int = 1, metrics: InferenceMetrics | None = None) -> Groups:
    """``ranks`` on each machine; they do what files in ``directory`` wish."""
    layout = choose_layout(device="cpu", ranks=ranks, sequence=0, machines=1 + len(hosts))
    orders = load_orders(model="", directory=directory, sha256={}, device="cpu", dtype="auto", layout=layout, threads=1)
    machines = Machines(
        directory, module=quick_rank.MODULE, hosts=[RemoteHost(address) for address in hosts], address="127.0.0.1:1"
    )
    metrics = metrics or InferenceMetrics(CollectorRegistry())
    return Groups(orders, RankLimits(start_s=20, stop_s=2), metrics, machines)


@contextlib.asynccontextmanager
async def running(groups: Groups) -> AsyncIterator[Groups]:
    groups.start()
    try:
        yield groups
    finally:
        await groups.close()


async def no_ranks() -> None:
    """Wait until none is left, on any machine: those elsewhere end a moment after the call to their host."""
    async with asyncio.timeout(20):
        while rank_processes():
            await asyncio.sleep(0.01)
