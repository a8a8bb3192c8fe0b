"""An inference process with the embedded model, and spans with it as a gateway holds them."""

import asyncio
import contextlib
import json
import os
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
import psutil
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.fleet import WorkerStatus
from services.common.media import Packet, SpanTask
from services.common.pb.seedvr2.v1 import worker_pb2 as pb
from services.common.pb.seedvr2.v1 import worker_pb2_grpc
from services.common.plan import Segment
from services.common.rpc.codec import SegmentAssembler, decode_status, encode_packets, encode_task
from services.common.rpc.ending import CallEnding
from services.common.rpc.server import open_channel
from services.common.rpc.status import error_of
from tests.unit.inference.clips import Clip, plan_for, task_for

_READY_S = 120.0
_LOSSLESS = {"encoder_options": (("crf", "0"), ("preset", "ultrafast"))}
"""Of a plan whose segments can be compared sample by sample."""


class RankServer:
    """A process with ranks."""

    def __init__(self, module: str, prefix: str, directory: Path, **settings: Any) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._ready_file, self._log_file = directory / "ready.json", directory / "log"
        # That of an earlier process.
        self._ready_file.unlink(missing_ok=True)
        values = {"address": "127.0.0.1:0", "metrics_address": "127.0.0.1:0", "ready_file": self._ready_file, **settings}
        environment = {f"{prefix}_{name}".upper(): str(value) for name, value in values.items()}
        with self._log_file.open("ab") as log:
            self.process = subprocess.Popen([sys.executable, "-m", module], env=os.environ | environment, stdout=log, stderr=log)

    @property
    def log(self) -> str:
        return self._log_file.read_text()

    @property
    def address(self) -> str:
        return str(self._addresses["address"])

    @property
    def _addresses(self) -> dict[str, Any]:
        deadline = time.monotonic() + _READY_S
        while not self._ready_file.exists():
            assert self.process.poll() is None, self.log
            assert time.monotonic() < deadline
            time.sleep(0.05)
        return dict(json.loads(self._ready_file.read_text()))

    def metric(self, sample: str) -> float:
        """The value of one sample, named as Prometheus writes it."""
        url = f"http://{self._addresses['metrics_address']}/metrics"
        with urllib.request.urlopen(url, timeout=10) as answer:
            found = re.search(rf"^{re.escape(sample)} (\S+)$", answer.read().decode(), re.MULTILINE)
        return float(found[1]) if found else 0.0

    def children(self, module: str) -> list[psutil.Process]:
        return [p for p in psutil.Process(self.process.pid).children() if module in p.cmdline()]

    @property
    def ranks(self) -> list[psutil.Process]:
        """In the order in which they were started."""
        return sorted(self.children("services.inference.gpu.rank"), key=lambda process: process.pid)

    @property
    def rank(self) -> psutil.Process:
        return self.ranks[0]

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


class Worker(RankServer):
    """An inference process with the embedded model."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        super().__init__("services.inference", "SEEDVR2_INFERENCE", directory, torch_threads=1, **settings)


@dataclass
class Calls:
    """A connection to a worker."""

    channel: grpc.aio.Channel

    async def status(self) -> WorkerStatus:
        stub: Any = worker_pb2_grpc.WorkerStub(self.channel)
        return decode_status(await stub.Status(pb.StatusRequest(), timeout=10))

    async def serving(self, service: str = "") -> bool:
        stub: Any = health_pb2_grpc.HealthStub(self.channel)
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service), timeout=10)
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    async def until_state(self, *states: str, timeout_s: float = _READY_S) -> WorkerStatus:
        async with asyncio.timeout(timeout_s):
            while (status := await self.status()).state not in states:
                await asyncio.sleep(0.02)
        return status

    async def task(self, clip: Clip, **options: Any) -> SpanTask:
        """A span of a clip, planned for this worker."""
        status = await self.until_state("ready")
        known = {"fingerprint": status.fingerprint, "model_hash": status.models[0].hash}
        return task_for(clip, plan=plan_for(clip, **known | options.pop("plan", {})), **options)

    def restore(self, task: SpanTask, packets: AsyncIterator[Packet], *, timeout_s: float | None = None) -> "Conversation":
        stub: Any = worker_pb2_grpc.WorkerStub(self.channel)
        return Conversation(stub.Restore(timeout=timeout_s), task, packets)


@dataclass
class Conversation:
    """One span, as a gateway holds it: packets up, segments down, an acknowledgement for each."""

    call: Any
    task: SpanTask
    packets: AsyncIterator[Packet]
    segments: dict[Segment, bytes] = field(default_factory=dict)
    stages: dict[str, int] = field(default_factory=dict)
    done: pb.SpanDone | None = None

    async def hold(self, *, until: Callable[["Conversation"], bool] = lambda _: False) -> "Conversation":
        """Until the end, or until a condition holds. Raises ServiceError."""
        sending = asyncio.create_task(self._send())
        try:
            while (message := await self.call.read()) is not grpc.aio.EOF:
                await self._hear(message)
                if until(self):
                    return self
        except grpc.RpcError as failure:
            raise error_of(await self._ending.failure(failure)) from failure
        finally:
            sending.cancel()
        return self

    async def _send(self) -> None:
        with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
            await self.call.write(pb.RestoreRequest(header=encode_task(self.task)))
            async for chunk in encode_packets(self.packets):
                await self.call.write(pb.RestoreRequest(chunk=chunk))
            await self.call.write(pb.RestoreRequest(end=pb.SpanEnd()))

    async def _hear(self, message: pb.RestoreResponse) -> None:
        if message.HasField("progress"):
            self.stages[message.progress.stage] = message.progress.frames
        elif message.HasField("done"):
            self.done = message.done
        elif (whole := self._assembler.feed(message.segment)) is not None:
            self.segments[whole[0]] = whole[1]
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                await self.call.write(pb.RestoreRequest(stored=pb.SegmentStored(first=whole[0].first)))

    def __post_init__(self) -> None:
        self._assembler = SegmentAssembler()
        self._ending = CallEnding(self.call)


async def packets_of(clip: Clip, pause: asyncio.Event | None = None) -> AsyncIterator[Packet]:
    for packet in clip.packets:
        yield packet
    if pause is not None:
        await pause.wait()


@contextlib.asynccontextmanager
async def connected(worker: Worker) -> AsyncIterator[Calls]:
    async with open_channel(await asyncio.to_thread(lambda: worker.address)) as channel:
        yield Calls(channel)


async def talk_on(talk: Conversation) -> None:
    """Read to the end what was begun to be sent."""
    while (message := await talk.call.read()) is not grpc.aio.EOF:
        await talk._hear(message)


async def restored(worker: Worker, clip: Clip) -> dict[Segment, bytes]:
    """What a worker makes of a clip."""
    async with connected(worker) as calls:
        return (await restore(calls, clip)).segments


async def restore(calls: Calls, clip: Clip) -> Conversation:
    """A span of all of a clip, held to its end."""
    return await calls.restore(await calls.task(clip, plan=_LOSSLESS), packets_of(clip)).hold()


async def begun(calls: Calls, clip: Clip, **changes: Any) -> Conversation:
    """A span in its middle."""
    talk = calls.restore(replace(await calls.task(clip), **changes), packets_of(clip))
    return await talk.hold(until=lambda t: "vae_encode" in t.stages)
