"""The conversation with a worker about one span."""

import asyncio
import contextlib
from collections.abc import AsyncIterable
from typing import Any, cast

import grpc
from grpc_status import rpc_status

from services.common.errors import DeadlinePassed, ServiceError, WorkerBroken, WorkerUnavailable
from services.common.media import Packet, SpanTask
from services.common.pb.seedvr2.v1 import worker_pb2 as pb
from services.common.rpc.codec import SegmentAssembler, encode_packets, encode_task
from services.common.rpc.ending import CallEnding, why
from services.common.rpc.status import error_of
from services.gateway.ports import OnSegment, OnStage, SpanOutcome
from services.gateway.tasks import together

# Messages, each of at most a piece.
_READ_AHEAD = 4


class Conversation:
    """One span on one worker."""

    def __init__(self, call: Any, address: str, stall_s: float) -> None:
        self._call = call
        self._ending = CallEnding(call)
        self._address = address
        self._stall_s = stall_s
        self._writing = asyncio.Lock()
        self._arrived: asyncio.Queue[pb.RestoreResponse | ServiceError] = asyncio.Queue(_READ_AHEAD)
        self._over = False
        self._begun = False

    def end(self) -> None:
        """Cancel the call if it is open; that frees the worker."""
        self._call.cancel()

    async def hold(self, task: SpanTask, packets: AsyncIterable[Packet], on_segment: OnSegment, on_stage: OnStage) -> SpanOutcome:
        """Send everything, take everything. Raises ServiceError."""
        async with together() as group:
            helpers = [group.create_task(self._send(task, packets)), group.create_task(self._read())]
            outcome = await self._take(on_segment, on_stage)
            # A worker that has all its frames needs no more packets.
            for helper in helpers:
                helper.cancel()
        return outcome

    async def _send(self, task: SpanTask, packets: AsyncIterable[Packet]) -> None:
        self._begun = await self._write(pb.RestoreRequest(header=encode_task(task)))
        async for chunk in encode_packets(packets):
            await self._write(pb.RestoreRequest(chunk=chunk))
        await self._write(pb.RestoreRequest(end=pb.SpanEnd()))

    async def _write(self, message: pb.RestoreRequest) -> bool:
        """Whether it went out. When the call is over, the receiving side learns why."""
        async with self._writing:
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                await self._call.write(message)
                return True
        return False

    async def _read(self) -> None:
        """Read ahead a little, so that what came before an error, or an end, is there even if it takes time to store."""
        try:
            while not self._over:
                message = await self._next()
                self._over = message.HasField("done")
                await self._arrived.put(message)
        except ServiceError as error:
            self._over = True
            await self._arrived.put(error)

    async def _take(self, on_segment: OnSegment, on_stage: OnStage) -> SpanOutcome:
        assembler = SegmentAssembler()
        while True:
            message = await self._arrived.get()
            if isinstance(message, ServiceError):
                raise message
            kind = message.WhichOneof("message")
            if kind == "progress":
                on_stage(message.progress.stage, message.progress.frames, message.progress.seconds)
            elif kind == "segment":
                await self._take_part(assembler, message.segment, on_segment)
            elif kind == "done":
                return SpanOutcome(frames=message.done.frames, concealed_frames=message.done.concealed_frames)

    async def _take_part(self, assembler: SegmentAssembler, part: pb.SegmentPart, on_segment: OnSegment) -> None:
        whole = assembler.feed(part)
        if whole is not None:
            await on_segment(*whole)
            # A worker that has ended waits for nothing.
            if not self._over:
                await self._write(pb.RestoreRequest(stored=pb.SegmentStored(first=whole[0].first)))

    async def _next(self) -> pb.RestoreResponse:
        try:
            async with asyncio.timeout(self._stall_s):
                message = await self._call.read()
        except TimeoutError as error:
            raise DeadlinePassed(f"The worker at {self._address} said nothing for {self._stall_s:g} s.") from error
        except grpc.RpcError as failure:
            raise self._error(await self._ending.failure(failure)) from failure
        if message is grpc.aio.EOF:
            raise WorkerBroken(f"The worker at {self._address} ended a span without finishing it.")
        return cast(pb.RestoreResponse, message)

    def _error(self, failure: grpc.RpcError) -> ServiceError:
        if rpc_status.from_call(failure) is not None:
            return error_of(failure)
        if not self._begun:
            # It may have been gone for long: no span has anything to do with that.
            return WorkerUnavailable(f"The worker at {self._address} can't be reached ({why(failure)}).")
        return WorkerBroken(f"The worker at {self._address} was lost ({why(failure)}).")
