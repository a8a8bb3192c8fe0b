"""A small real worker, and a span for it."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction

from services.common.media import Packet, SpanTask
from services.common.pb.seedvr2.v1 import worker_pb2_grpc
from services.common.plan import RestorePlan, Segment
from services.common.rpc.server import Server
from services.gateway.fleet.workers import Fleet
from tests.clips import make
from tests.integration.echo_worker import EchoSettings, EchoWorker
from tests.unit.gateway.examples import info

PLAN = RestorePlan(
    model="echo", model_hash="0" * 64, fingerprint="echo-1", dtype="", weight_format="", width=64, height=48, seed=1,
    encoder_options=(("preset", "ultrafast"),),
)  # fmt: skip
TASK = SpanTask(
    job_id="j", span=0, request_id="r", codec=replace(info(width=64, height=48).codec, codec="png"), time_base=Fraction(1, 25),
    first_index=0, frame_pts=tuple(range(6)), last_duration=1, by_order=True, context_frames=0,
    segments=(Segment(first=0, end=4), Segment(first=4, end=6)), stored=frozenset(), plan=PLAN,
)  # fmt: skip


@asynccontextmanager
async def serving(settings: EchoSettings | None = None) -> AsyncIterator[str]:
    """An echo worker; its address."""
    worker = EchoWorker(settings or EchoSettings())
    server = Server("127.0.0.1:0")
    server.add("seedvr2.v1.Worker", lambda s: worker_pb2_grpc.add_WorkerServicer_to_server(worker, s))
    address = f"127.0.0.1:{await server.start()}"
    try:
        yield address
    finally:
        await server.stop(0)


async def packets(count: int = 6) -> AsyncIterator[Packet]:
    for number in range(count):
        yield Packet(pts=number, dts=number, duration=1, keyframe=True, data=make.png(number))


async def restore(workers: Fleet, address: str, task: SpanTask = TASK) -> tuple[list[Segment], list[str]]:
    segments: list[Segment] = []
    stages: list[str] = []

    async def keep(segment: Segment, data: bytes) -> None:
        assert data
        segments.append(segment)

    await workers.restore(address, task, packets(), keep, lambda stage, frames, seconds: stages.append(stage))
    return segments, stages
