"""The inference pods: a static list of them, how each is, and the conversation about one span."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import grpc
from grpc_status import rpc_status

from services.common.errors import DeadlinePassed, ServiceError, SettingsError, WorkerBroken
from services.common.fleet import WorkerStatus
from services.common.media import Packet, SpanTask
from services.common.pb.seedvr2.v1 import worker_pb2 as pb
from services.common.pb.seedvr2.v1 import worker_pb2_grpc
from services.common.rpc.codec import SegmentAssembler, decode_status, encode_packets, encode_task
from services.common.rpc.ending import CallEnding
from services.common.rpc.server import open_channel
from services.common.rpc.status import error_of
from services.gateway.ports import OnSegment, OnStage, SpanOutcome, WorkerView
from services.gateway.tasks import together

_log = logging.getLogger(__name__)
_STATUS_TIMEOUT_S = 5.0
# Messages, each of at most a piece.
_READ_AHEAD = 4


def parse_workers(entries: Sequence[str]) -> list[tuple[str, str]]:
    """``pool=host:port`` entries as (pool, address); the pool may be left out.

    Raises:
        SettingsError: an entry of another form, or an address twice.
    """
    found: dict[str, str] = {}
    for entry in entries:
        pool, _, address = entry.rpartition("=")
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit() or address in found:
            raise SettingsError(f"{entry!r} in the list of workers is not pool=host:port, or its address is there twice.")
        found[address] = pool
    return [(pool, address) for address, pool in found.items()]


class StaticWorkers:
    """Workers from a list; each is asked for its status every ``poll_s`` seconds."""

    def __init__(self, entries: Sequence[tuple[str, str]], *, poll_s: float, stall_s: float) -> None:
        self._poll_s = poll_s
        self._stall_s = stall_s
        self._views = {a: WorkerView(address=a, pool=p, status=None, lost=True, detail="not asked yet") for p, a in entries}
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._ask_now = {address: asyncio.Event() for address in self._views}
        self._listeners: list[Callable[[], None]] = []
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to ask; returns when each was asked once."""
        for address in self._views:
            self._channels[address] = open_channel(address)
        await asyncio.gather(*(self._ask(address) for address in self._views))
        self._tasks = [asyncio.create_task(self._watch(address)) for address in self._views]

    async def aclose(self) -> None:
        """End all conversations."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for channel in self._channels.values():
            await channel.close()

    def views(self) -> list[WorkerView]:
        """See :class:`Workers`."""
        return list(self._views.values())

    def on_change(self, listener: Callable[[], None]) -> None:
        """See :class:`Workers`."""
        self._listeners.append(listener)

    def suspect(self, address: str) -> None:
        """See :class:`Workers`."""
        self._show(replace(self._views[address], lost=True, detail="it was lost in the middle of a span"))
        self._ask_now[address].set()

    async def restore(
        self, address: str, task: SpanTask, packets: AsyncIterable[Packet], on_segment: OnSegment, on_stage: OnStage
    ) -> SpanOutcome:
        """See :class:`Workers`."""
        stub: Any = worker_pb2_grpc.WorkerStub(self._channels[address])
        conversation = _Conversation(stub.Restore(), address, self._stall_s)
        try:
            return await conversation.hold(task, packets, on_segment, on_stage)
        finally:
            conversation.end()
            # It may be free again, or gone.
            self._ask_now[address].set()

    async def _watch(self, address: str) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._ask_now[address].wait()
            self._ask_now[address].clear()
            await self._ask(address)

    async def _ask(self, address: str) -> None:
        view = self._views[address]
        stub: Any = worker_pb2_grpc.WorkerStub(self._channels[address])
        try:
            status = decode_status(await stub.Status(pb.StatusRequest(), timeout=_STATUS_TIMEOUT_S))
        except grpc.RpcError as failure:
            self._show(replace(view, lost=True, detail=_why(failure)))
            return
        status = _with_what_it_served(status, view.status)
        self._show(replace(view, pool=status.pool or view.pool, status=status, lost=False, detail=status.detail))

    def _show(self, view: WorkerView) -> None:
        before = self._views[view.address]
        if view == before:
            return
        self._views[view.address] = view
        if view.state != before.state:
            _log.info("worker is %s", view.state, extra={"worker": view.address, "detail": view.detail})
        for listener in self._listeners:
            listener()


class _Conversation:
    """One span on one worker."""

    def __init__(self, call: Any, address: str, stall_s: float) -> None:
        self._call = call
        self._ending = CallEnding(call)
        self._address = address
        self._stall_s = stall_s
        self._writing = asyncio.Lock()
        self._arrived: asyncio.Queue[pb.RestoreResponse | ServiceError] = asyncio.Queue(_READ_AHEAD)
        self._over = False

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
        await self._write(pb.RestoreRequest(header=encode_task(task)))
        async for chunk in encode_packets(packets):
            await self._write(pb.RestoreRequest(chunk=chunk))
        await self._write(pb.RestoreRequest(end=pb.SpanEnd()))

    async def _write(self, message: pb.RestoreRequest) -> None:
        async with self._writing:
            # When the call is over, the receiving side learns why.
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                await self._call.write(message)

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
        if rpc_status.from_call(failure) is None:
            return WorkerBroken(f"The worker at {self._address} was lost ({_why(failure)}).")
        return error_of(failure)


def _with_what_it_served(status: WorkerStatus, before: WorkerStatus | None) -> WorkerStatus:
    # A worker that has just been started again can't say yet; jobs for what it served can be created meanwhile, and wait.
    if before is None or status.models:
        return status
    return replace(status, models=before.models, fingerprint=before.fingerprint, installed=status.installed or before.installed)


def _why(failure: grpc.RpcError) -> str:
    return {
        grpc.StatusCode.UNAVAILABLE: "no connection",
        grpc.StatusCode.DEADLINE_EXCEEDED: "no answer in time",
        grpc.StatusCode.UNIMPLEMENTED: "it is no inference service",
    }.get(failure.code(), str(failure.code().name).lower().replace("_", " "))
