"""The Worker service: decode, call the engine, encode."""

import asyncio
import contextlib
from collections.abc import AsyncIterable, AsyncIterator, Iterator
from dataclasses import replace

import grpc

from services.common.pb.seedvr2.v1 import worker_pb2 as pb
from services.common.pb.seedvr2.v1 import worker_pb2_grpc
from services.common.rpc.codec import encode_segment, encode_status
from services.inference.engine import Engine
from services.inference.inbox import SpanInbox
from services.inference.messages import SegmentReady, SpanEvent, SpanProgress
from services.inference.shelf import Shelf

_SETTLE_S = 30.0
SERVICE_NAME = "seedvr2.v1.Worker"


class WorkerServicer(worker_pb2_grpc.WorkerServicer):
    """What gateways call."""

    def __init__(self, engine: Engine, shelf: Shelf) -> None:
        self._engine = engine
        self._shelf = shelf

    async def Restore(
        self, requests: AsyncIterable[pb.RestoreRequest], context: grpc.aio.ServicerContext
    ) -> AsyncIterator[pb.RestoreResponse]:
        """One span; see worker.proto. A call that ends, however it ends, ends the work on it."""
        inbox = SpanInbox(requests)
        task = await inbox.header()
        run = self._engine.submit(task, inbox.packets(), context.time_remaining())
        context.add_done_callback(lambda _: run.cancel())
        async with inbox.reading():
            async for event in run.events:
                if isinstance(event, SegmentReady):
                    await inbox.room_for(event.segment.first)
                for response in _encode(event):
                    yield response
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(inbox.settled(), _SETTLE_S)

    async def Status(self, request: pb.StatusRequest, context: grpc.aio.ServicerContext) -> pb.StatusResponse:
        """How this worker is."""
        return encode_status(replace(self._engine.status(), installed=self._shelf.models()))


def register(engine: Engine, shelf: Shelf, server: grpc.aio.Server) -> None:
    """Offer the service on a server."""
    worker_pb2_grpc.add_WorkerServicer_to_server(WorkerServicer(engine, shelf), server)


def _encode(event: SpanEvent) -> Iterator[pb.RestoreResponse]:
    if isinstance(event, SegmentReady):
        for part in encode_segment(event.segment, event.data):
            yield pb.RestoreResponse(segment=part)
    elif isinstance(event, SpanProgress):
        yield pb.RestoreResponse(progress=pb.StageProgress(stage=event.stage, frames=event.frames, seconds=event.seconds))
    else:
        done = pb.SpanDone(
            frames=event.frames, concealed_frames=event.concealed_frames,
            megapixels_per_second=event.megapixels_per_second, peak_memory_bytes=event.peak_memory_bytes,
        )  # fmt: skip
        yield pb.RestoreResponse(done=done)
