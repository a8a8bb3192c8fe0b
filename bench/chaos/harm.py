"""Faults as they are: done to a fleet, and healed."""

import asyncio
import contextlib
import os
import signal
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from bench.chaos.faults import Fault, Kind
from bench.chaos.fleet import Fleet, send
from tests.fault_proxy import Fault as WayFault
from tests.fault_proxy import FaultProxy
from tests.integration.processes import Process


@dataclass(frozen=True, slots=True, kw_only=True)
class Suffered:
    """A fault that was done."""

    fault: Fault
    """Which."""

    began: float
    """By the monotonic clock."""

    healed: float
    """By the monotonic clock; what recovers by itself takes longer."""


async def suffer(fleet: Fleet, faults: list[Fault]) -> list[Suffered]:
    """Do all of them, each at its time or, where its place is still broken, once that is healed."""
    began, places = time.monotonic(), defaultdict[str, asyncio.Lock](asyncio.Lock)
    suffered: list[Suffered] = []

    async def one(fault: Fault) -> None:
        await asyncio.sleep(began + fault.at_s - time.monotonic())
        async with places[fault.place]:
            since = time.monotonic()
            async with _broken(fleet, fault):
                await asyncio.sleep(fault.lasts_s)
            suffered.append(Suffered(fault=fault, began=since, healed=time.monotonic()))

    async with asyncio.TaskGroup() as group:
        for fault in faults:
            group.create_task(one(fault))
    return sorted(suffered, key=lambda each: each.began)


def _broken(fleet: Fleet, fault: Fault) -> contextlib.AbstractAsyncContextManager[None]:
    gateway = fleet.gateways[fault.gateway]
    ways, silent = [each.store for each in fleet.gateways], bool(fault.amount)
    match fault.kind:
        case Kind.GATEWAY_KILLED:
            return _killed(fleet, gateway.process)
        case Kind.WORKER_KILLED:
            return _killed(fleet, fleet.workers[fault.worker])
        case Kind.STORE_KILLED:
            return _store_killed(fleet)
        case Kind.STORE_SLOW:
            return _going_wrong(ways, WayFault(delay_s=fault.amount))
        case Kind.STORE_ERRORS | Kind.STORE_FULL:
            return _going_wrong(ways, WayFault(status=int(fault.amount), only=_WRITES if fault.kind is Kind.STORE_FULL else ""))
        case Kind.CUT_FROM_STORE:
            return _going_wrong([gateway.store], _cut(silent))
        case Kind.CUT_FROM_WORKER:
            return _going_wrong([gateway.workers[fault.worker]], _cut(silent))
        case Kind.CUT_FROM_CLUSTER:
            return _going_wrong([gateway.cluster], _cut(silent))
        case Kind.CUT_FROM_CLIENTS:
            return _going_wrong([gateway.clients], _cut(silent))
    return _asynchronous(_quickly(fleet, fault))


@contextlib.contextmanager
def _quickly(fleet: Fleet, fault: Fault) -> Iterator[None]:
    """What is done, and healed, at once."""
    gateway = fleet.gateways[fault.gateway]
    match fault.kind:
        case Kind.GATEWAY_STOPPED:
            send(gateway.process, signal.SIGSTOP)
            yield
            send(gateway.process, signal.SIGCONT)
        case Kind.RANK_KILLED:
            for rank in fleet.ranks(fault.worker):
                os.kill(rank, signal.SIGKILL)
            yield
        case Kind.STORE_SILENT:
            fleet.server.pause()
            yield
            fleet.server.go_on()
        case Kind.DISK_FULL:
            gateway.disk.fill()
            yield
            gateway.disk.free()
        case Kind.CLOCK_JUMP if gateway.clock:
            gateway.clock.set(fault.amount)
            yield
            gateway.clock.set(0)


_WRITES = "^(PUT|POST) "


@contextlib.asynccontextmanager
async def _asynchronous(harm: contextlib.AbstractContextManager[None]) -> AsyncIterator[None]:
    with harm:
        yield


@contextlib.asynccontextmanager
async def _killed(fleet: Fleet, process: Process) -> AsyncIterator[None]:
    fleet.kept_down.add(process)
    if process.alive:
        await process.kill()
    yield
    fleet.kept_down.discard(process)


@contextlib.asynccontextmanager
async def _store_killed(fleet: Fleet) -> AsyncIterator[None]:
    await asyncio.to_thread(fleet.server.kill)
    yield
    await asyncio.to_thread(fleet.server.start)


@contextlib.asynccontextmanager
async def _going_wrong(ways: list[FaultProxy], fault: WayFault) -> AsyncIterator[None]:
    for way in ways:
        way.set(fault)
    yield
    for way in ways:
        way.set()
        if fault.silent:
            # Whoever is there again knows nothing of connections from before.
            way.cut()


def _cut(silent: bool) -> WayFault:
    return WayFault(silent=True) if silent else WayFault(refuse=True)
