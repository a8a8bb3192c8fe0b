"""Many clients on one gateway, with workers that answer at once: ``python -m bench.load``.

Clients upload, watch and download at the same time; then more jobs come than are taken. Prints how long calls take, what passes
through, and how the gateway's memory grows. Clients and gateway share the machine, so the numbers are those of both together.
"""

import argparse
import asyncio
import contextlib
import os
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from bench.table import print_table
from services.common.client import GatewayClient
from services.common.errors import QueueFull
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.clips import make
from tests.integration.gateway_calls import request
from tests.integration.processes import Process, echo_worker, gateway, running

_MB = 1e6
_SAMPLE_S = 0.1
_PIECE = os.urandom(1 << 20)


@dataclass(slots=True)
class Phase:
    """What clients did at the same time."""

    name: str
    seconds: list[float] = field(default_factory=list)
    bytes: int = 0
    started: float = field(default_factory=time.perf_counter)
    elapsed: float = 0.0
    memory: float = 0.0

    @contextlib.contextmanager
    def timed(self):  # type: ignore[no-untyped-def]
        """One call."""
        before = time.perf_counter()
        yield
        self.seconds.append(time.perf_counter() - before)

    def row(self) -> tuple[str, ...]:
        """For the table."""
        ordered = sorted(self.seconds)
        median, slow = ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99) - 1]
        passed = f"{self.bytes / self.elapsed / _MB:.0f}" if self.bytes else ""
        times = [f"{1e3 * median:.0f}", f"{1e3 * slow:.0f}", f"{len(ordered) / self.elapsed:.0f}"]
        return self.name, str(len(ordered)), *times, passed, f"{self.memory / _MB:.0f}"


class Load:
    """Clients of one gateway."""

    def __init__(self, process: Process, clients: list[GatewayClient], hold: Path) -> None:
        self._process = process
        self._clients = clients
        self._hold = hold
        self.phases: list[Phase] = []

    @contextlib.asynccontextmanager
    async def phase(self, name: str) -> AsyncIterator[Phase]:
        """Measure what is done inside the block."""
        phase = Phase(name)
        sampling = asyncio.create_task(self._sample(phase))
        try:
            yield phase
        finally:
            phase.elapsed = time.perf_counter() - phase.started
            sampling.cancel()
            self.phases.append(phase)

    async def all(self, do: Callable[[int, GatewayClient], Awaitable[object]]) -> None:
        """Every client at the same time."""
        await asyncio.gather(*(do(number, client) for number, client in enumerate(self._clients)))

    async def upload(self, megabytes: int) -> None:
        """Each an upload of its own."""
        async with self.phase(f"upload of {megabytes} MiB") as phase:

            async def send(number: int, client: GatewayClient) -> None:
                with phase.timed():
                    upload = await client.create_upload("load.mp4", megabytes << 20, f"load-{number}")
                    await client.write_upload(upload.upload_id, 0, _pieces(megabytes), finish=True)
                phase.bytes += megabytes << 20

            await self.all(send)
        await self.all(lambda number, client: client.delete_upload(f"load-{number}"))

    async def calls(self, job_id: str) -> None:
        """Small calls."""
        async with self.phase("GetJob") as phase:

            async def ask(number: int, client: GatewayClient) -> None:
                for _ in range(10):
                    with phase.timed():
                        await client.get_job(job_id)

            await self.all(ask)

    async def watch(self, upload: pb.Upload) -> None:
        """All watch one job from its beginning; how long after its end each hears of it."""
        self._hold.touch()
        job = await self._clients[0].create_job(request(upload), "watched")
        ended: list[float] = []
        async with self.phase("watch, from the first end heard") as phase:

            async def look(number: int, client: GatewayClient) -> None:
                async for seen in client.watch_job(job.job_id):
                    if seen.state == pb.JOB_STATE_RESTORING:
                        self._hold.unlink(missing_ok=True)
                ended.append(time.perf_counter())

            await self.all(look)
            phase.seconds = [at - min(ended) for at in ended]

    async def download(self, job_id: str, size_bytes: int) -> None:
        """All read one source, which is larger than a result."""
        async with self.phase(f"download of {size_bytes >> 20} MiB") as phase:

            async def get(number: int, client: GatewayClient) -> None:
                with phase.timed():
                    _, pieces = await client.read_source(job_id)
                    async for piece in pieces:
                        phase.bytes += len(piece)

            await self.all(get)

    async def overload(self, upload: pb.Upload, most: int) -> tuple[int, int, int]:
        """Each wants a job at once, and comes back until it has one: accepted at first, refused in all, ended well."""
        self._hold.touch()
        taken, refused, done = 0, 0, 0
        async with self.phase(f"job, {most} at a time") as phase:

            async def want(number: int, client: GatewayClient) -> None:
                nonlocal taken, refused, done
                with phase.timed():
                    while True:
                        try:
                            job = await client.create_job(request(upload), f"over-{number}")
                        except QueueFull as error:
                            refused += 1
                            if error.retry_after_s is None:
                                raise SystemExit("a refusal doesn't say when to come back") from error
                            if taken + refused >= len(self._clients):
                                self._hold.unlink(missing_ok=True)
                            # Sooner than it says: pressure is what is wanted here.
                            await asyncio.sleep(min(error.retry_after_s, 0.5))
                            continue
                        taken += 1
                        break
                    ended = await client.wait_job(job.job_id)
                    done += ended.state == pb.JOB_STATE_SUCCEEDED

            await asyncio.gather(*(want(number, client) for number, client in enumerate(self._clients)))
        return taken, refused, done

    async def _sample(self, phase: Phase) -> None:
        watched = psutil.Process(self._process.ready["pid"])
        while True:
            phase.memory = max(phase.memory, float(watched.memory_info().rss))
            await asyncio.sleep(_SAMPLE_S)


async def _pieces(megabytes: int) -> AsyncIterator[bytes]:
    for _ in range(megabytes):
        yield _PIECE


async def measure(arguments: argparse.Namespace, directory: Path) -> None:
    """Do everything once, and print it."""
    hold, clip = directory / "hold", make.video(directory / "clip.mp4", frames=16)
    # Not compressed, so that there is something to download.
    large = make.video(directory / "large.avi", frames=36, size=(320, 240), codec="rawvideo")
    workers = [echo_worker(directory / f"worker-{i}", hold_file=hold) for i in range(2)]
    async with running(*workers):
        process = gateway(directory / "gateway", *workers, max_active_jobs=arguments.jobs, drain_s=1)
        async with running(process), contextlib.AsyncExitStack() as stack:
            connecting = [GatewayClient(process.address, timeout_s=120) for _ in range(arguments.clients)]
            clients = [await stack.enter_async_context(client) for client in connecting]
            load = Load(process, clients, hold)
            upload, film = await clients[0].upload_file(clip), await clients[0].upload_file(large)
            job = await clients[0].create_job(request(film, frames=(0, 16)), "film")
            await clients[0].wait_job(job.job_id)
            for _ in range(arguments.rounds):
                await load.upload(arguments.megabytes)
                await load.calls(job.job_id)
                await load.download(job.job_id, film.size_bytes)
            await load.watch(upload)
            taken, refused, done = await load.overload(upload, arguments.jobs)
    head = ("what", "times", "p50 ms", "p99 ms", "a second", "MB/s", "gateway MB, at most")
    print_table(f"{arguments.clients} clients on one gateway", head, [phase.row() for phase in load.phases])
    print_table("Overload", ("jobs wanted", "refusals, each with a time", "accepted", "ended well"),
                [(str(len(clients)), str(refused), str(taken), str(done))])  # fmt: skip
    if not taken == done == len(clients):
        raise SystemExit("something that was accepted is lost")


def main() -> None:
    """Read the arguments and measure."""
    parser = argparse.ArgumentParser(prog="python -m bench.load", description=__doc__)
    parser.add_argument("--clients", type=int, default=200, help="at the same time (default: %(default)s)")
    parser.add_argument("--megabytes", type=int, default=4, help="of an upload (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of uploads, calls and downloads (default: %(default)s)")
    parser.add_argument("--jobs", type=int, default=10, help="that the gateway takes at a time (default: %(default)s)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        asyncio.run(measure(arguments, Path(directory)))


if __name__ == "__main__":
    main()
