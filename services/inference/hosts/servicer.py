"""The RankHost service: one life of ranks at a time, for whoever calls last."""

import asyncio
from collections.abc import AsyncIterator

import grpc

from services.common.errors import ChunkOutOfOrder, Draining
from services.common.metrics import RankHostMetrics
from services.common.pb.seedvr2.v1 import rank_host_pb2 as pb
from services.common.pb.seedvr2.v1 import rank_host_pb2_grpc
from services.inference.hosts.life import HostedLife
from services.inference.launch import RANK_MODULE

SERVICE_NAME = "seedvr2.v1.RankHost"


class RankHostServicer(rank_host_pb2_grpc.RankHostServicer):
    """What the worker calls whose ranks are here."""

    def __init__(self, metrics: RankHostMetrics, module: str = RANK_MODULE) -> None:
        """``module`` is what each rank runs."""
        self._metrics = metrics
        self._module = module
        self._lives: list[HostedLife] = []
        self._turn = asyncio.Lock()
        self._leaving = False
        self._idle = asyncio.Event()
        self._idle.set()

    async def Live(self, requests: AsyncIterator[pb.LiveRequest], context: grpc.aio.ServicerContext) -> None:
        """See rank_host.proto. Its answers are written as they come, so nothing is returned."""
        if self._leaving:
            raise Draining("This rank host is about to stop.")
        life = HostedLife(await _ranks_of(requests), self._module, self._metrics)
        for other in self._lives:
            other.give_way()
        self._lives.append(life)
        self._idle.clear()
        try:
            async with self._turn:
                await life.run(requests, context.write)
        finally:
            self._lives.remove(life)
            if not self._lives:
                self._idle.set()

    async def drain(self, drain_s: float) -> None:
        """Take no more calls, tell the leader to end its own, and wait ``drain_s`` for it."""
        self._leaving = True
        for life in self._lives:
            life.leave()
        try:
            async with asyncio.timeout(drain_s):
                await self._idle.wait()
        except TimeoutError:
            for life in self._lives:
                life.give_way()


def register(servicer: RankHostServicer, server: grpc.aio.Server) -> None:
    """Offer the service on a server."""
    rank_host_pb2_grpc.add_RankHostServicer_to_server(servicer, server)


async def _ranks_of(requests: AsyncIterator[pb.LiveRequest]) -> list[pb.RankStart]:
    """Which ranks the first request asks for."""
    async for request in requests:
        if request.HasField("start"):
            return list(request.start.ranks)
        break
    raise ChunkOutOfOrder("A life of ranks begins with which ranks there are.")
