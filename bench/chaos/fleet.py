"""What things go wrong with: gateways, workers and an S3 server as processes, a Kubernetes API, and ways between all of them."""

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.chaos import surroundings
from bench.chaos.faults import Shape
from services.common.client import GatewayClient
from services.common.errors import ServiceError
from services.common.settings import as_environment
from services.gateway.store.s3.settings import PREFIX as S3_PREFIX
from tests.fakes.kubernetes.cluster import Cluster, cluster
from tests.fault_proxy import FaultProxy
from tests.integration.processes import Process, echo_worker
from tests.s3 import SeaweedFS, free_ports, seaweedfs

ECHO, NANO = "echo", "nano"
"""Models, and pools of workers that serve them."""

DEADLY_FRAME = 150
"""Of a source; an echo worker that is given it ends itself. Shorter sources are harmless."""

PREFIX = "chaos/"
"""Begins all keys of the bucket."""

SEGMENT_FRAMES = 8
SWEEP_S = 5.0
"""Between two looks of a gateway for what nobody needs any more; leases of jobs that are gone among it."""

_LEASE_S, _RENEW_S = 9, 1.5
_START_S, _POLL_S, _REST_S = 120.0, 0.2, 2.0
_SEGMENT_S = 0.3
_RANK = "services.inference.gpu.rank"


@dataclass(kw_only=True)
class Gateway:
    """A gateway, and its ways to the others; nothing goes past them."""

    process: Process
    store: FaultProxy
    cluster: FaultProxy
    workers: list[FaultProxy]
    clients: FaultProxy
    disk: surroundings.Disk
    clock: surroundings.Clock | None
    """None: it has this machine's."""


@dataclass(kw_only=True)
class Fleet:
    """All of it. What dies is started again, as a cluster would, unless it is kept from that."""

    directory: Path
    server: SeaweedFS
    cluster: Cluster
    gateways: list[Gateway] = field(default_factory=list)
    workers: list[Process] = field(default_factory=list)
    kept_down: set[Process] = field(default_factory=set)
    """Not started now, even though they are dead."""

    @property
    def processes(self) -> list[Process]:
        """Gateways and workers."""
        return [*self.workers, *(gateway.process for gateway in self.gateways)]

    async def supervise(self) -> None:
        """Start again whatever has died, not at once where it dies at its start."""
        rests = dict.fromkeys(self.processes, 0.0)
        while True:
            await asyncio.sleep(_POLL_S)
            for process, until in rests.items():
                if not process.alive and process not in self.kept_down and time.monotonic() > until:
                    rests[process] = time.monotonic() + _REST_S
                    await process.start(ready=False)

    async def answering(self) -> None:
        """Return once all gateways see all workers. Raises TimeoutError."""
        async with asyncio.timeout(_START_S):
            for gateway in self.gateways:
                async with GatewayClient(gateway.clients.address, timeout_s=5) as client:
                    while await _ready_workers(client) < len(self.workers):  # noqa: ASYNC110 - a process of its own says so
                        await asyncio.sleep(_POLL_S)

    def ranks(self, worker: int) -> list[int]:
        """Ids of a worker's rank processes."""
        with contextlib.suppress(psutil.NoSuchProcess):
            children = psutil.Process(self.workers[worker].pid).children()
            return [child.pid for child in children if _RANK in child.cmdline()]
        return []


async def _ready_workers(client: GatewayClient) -> int:
    try:
        found = (await client.cluster_status()).workers
    except ServiceError:
        return 0
    return sum(worker.state in ("ready", "busy") for worker in found)


@contextlib.asynccontextmanager
async def running(directory: Path, shape: Shape) -> AsyncIterator[Fleet]:
    """A fleet that answers; whatever happens, nothing of it is left."""
    async with contextlib.AsyncExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, seaweedfs(directory / "store"))
        fake = await stack.enter_async_context(cluster(directory, loopback_endpoints=True))
        fleet = Fleet(directory=directory, server=server, cluster=fake)
        stack.push_async_callback(_end, fleet)
        fleet.workers = [_echo(directory / f"worker-{number}") for number in range(shape.workers)]
        fleet.workers += [_nano(directory / f"nano-{number}") for number in range(shape.ranks)]
        for worker in fleet.workers:
            await worker.start()
        for number in range(shape.gateways):
            fleet.gateways.append(await _gateway(stack, fleet, number, clock=number == shape.gateways - 1))
        for gateway in fleet.gateways:
            await gateway.process.start()
        await fleet.answering()
        supervising = asyncio.create_task(fleet.supervise())
        try:
            yield fleet
        finally:
            supervising.cancel()
            await asyncio.wait({supervising})


async def _end(fleet: Fleet) -> None:
    for process in fleet.processes:
        if process.alive:
            await process.kill()


def _echo(directory: Path) -> Process:
    return echo_worker(directory, pool=ECHO, models=ECHO, segment_s=_SEGMENT_S, deadly_frame=DEADLY_FRAME)


def _nano(directory: Path) -> Process:
    return Process(
        "services.inference", "SEEDVR2_INFERENCE", directory, pool=NANO, model=NANO, metrics_address="", device="cpu",
        torch_threads=1, encoder_threads=1, ranks=1,
    )  # fmt: skip


async def _gateway(stack: contextlib.AsyncExitStack, fleet: Fleet, number: int, *, clock: bool) -> Gateway:
    async def way(target: str, *, http: bool = False) -> FaultProxy:
        return await stack.enter_async_context(FaultProxy(target, http=http).listening())

    directory, address = fleet.directory / f"gateway-{number}", f"127.0.0.1:{free_ports(1)[0]}"
    directory.mkdir()
    store = await way(fleet.server.s3.endpoint.removeprefix("http://"), http=True)
    api = await way(fleet.cluster.faked().address.removeprefix("http://"))
    workers = [await way(worker.address) for worker in fleet.workers]
    disk = stack.enter_context(surroundings.disk(directory / "scratch"))
    faked = surroundings.Clock(directory / "clock") if clock else None
    s3 = fleet.server.s3.settings(
        directory, endpoint=f"http://{store.address}", prefix=PREFIX, scratch_directory=str(disk.directory), lifecycle=True,
        tries=8, retry_s=30.0, timeout_s=4.0,
    )  # fmt: skip
    pools = [NANO if worker.module == "services.inference" else ECHO for worker in fleet.workers]
    process = Process(
        "services.gateway", "SEEDVR2_GATEWAY", directory,
        as_environment(s3, S3_PREFIX) | (faked.environment if faked else {}),
        address=address, metrics_address="", rest_address="",
        workers=",".join(f"{pool}={each.address}" for pool, each in zip(pools, workers, strict=True)),
        worker_poll_s=0.5, leases="kubernetes", lease_s=_LEASE_S, lease_renew_s=_RENEW_S, adopt_s=2.0,
        kubernetes_config=_kubeconfig(fleet.cluster, directory / "kubeconfig", api.address), sweep_s=SWEEP_S,
        store_directory=directory / "unused", store_min_free_bytes=surroundings.LEFT_FREE_BYTES, default_model=ECHO,
        span_seconds=0.5, segment_frames=SEGMENT_FRAMES, span_stall_s=15.0, worker_wait_s=90.0, fingerprint_wait_s=90.0,
        container_silence_s=20.0, drain_s=1.0,
    )  # fmt: skip
    return Gateway(process=process, store=store, cluster=api, workers=workers, clients=await way(address), disk=disk, clock=faked)


def _kubeconfig(fake: Cluster, path: Path, address: str) -> Path:
    """How a gateway reaches the API by a way of its own."""
    config = json.loads(fake.faked().kubeconfig(path).read_text())
    config["clusters"][0]["cluster"]["server"] = f"http://{address}"
    path.write_text(json.dumps(config))
    return path


def send(process: Process, number: signal.Signals) -> None:
    """A signal, where there is somebody to get it."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(process.pid, number)
