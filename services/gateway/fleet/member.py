"""One worker: how it is, asked again and again, and what it restores."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterable, Callable
from dataclasses import replace
from typing import Any

import grpc

from services.common import tracing
from services.common.errors import SettingsError, WorkerUnavailable
from services.common.fleet import WorkerStatus
from services.common.media import Packet, SpanTask
from services.common.pb.seedvr2.v1 import worker_pb2 as pb
from services.common.pb.seedvr2.v1 import worker_pb2_grpc
from services.common.rpc.codec import decode_status
from services.common.rpc.ending import why
from services.common.rpc.server import open_channel
from services.common.rpc.tls import ChannelTls, handshake_words
from services.gateway.fleet.conversation import Conversation
from services.gateway.fleet.endpoints import Endpoint
from services.gateway.ports import OnSegment, OnStage, SpanOutcome, WorkerView

_log = logging.getLogger(__name__)
_STATUS_TIMEOUT_S = 5.0
# No span is as long; the stall timeout ends those that don't move.
_LONGEST_SPAN_S = 24 * 3600.0


class Member:
    """A worker at an address, until another one is there or nobody finds it any more."""

    def __init__(
        self, endpoint: Endpoint, *, poll_s: float, stall_s: float, on_change: Callable[[WorkerView, WorkerView], None],
        tls: ChannelTls | None = None,
    ) -> None:  # fmt: skip
        """``on_change`` gets the view before and after; ``tls`` None: without. Raises SettingsError."""
        self._endpoint = endpoint
        self._poll_s = poll_s
        self._stall_s = stall_s
        self._on_change = on_change
        self._tls = tls
        self._channel = open_channel(endpoint.address, tls)
        self._stub: Any = worker_pb2_grpc.WorkerStub(self._channel)
        self._view = WorkerView(
            address=endpoint.address, pool=endpoint.pool, status=None, lost=True, detail="not asked yet",
            known_as=endpoint.known_as,
        )  # fmt: skip
        self._ask_now = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._spans = 0
        self._gone = False
        self._asking = asyncio.create_task(self._ask_always())

    @property
    def view(self) -> WorkerView:
        """How it is."""
        return self._view

    def is_at(self, endpoint: Endpoint) -> bool:
        """Whether an endpoint is this worker's."""
        return not endpoint.identity or self._endpoint.identity in ("", endpoint.identity)

    def update(self, endpoint: Endpoint) -> None:
        """Take over what its finder knows of it now."""
        if endpoint.known_as != self._endpoint.known_as:
            # Its own word may be older than this.
            self._ask_now.set()
        self._endpoint = endpoint
        self._show(replace(self._view, known_as=endpoint.known_as))

    def suspect(self) -> None:
        """Count it as lost until it answers again."""
        self._show(replace(self._view, lost=True, detail="it was lost in the middle of a span"))
        self._ask_now.set()

    async def restore(
        self, task: SpanTask, packets: AsyncIterable[Packet], on_segment: OnSegment, on_stage: OnStage
    ) -> SpanOutcome:
        """See :class:`Workers`."""
        if self._gone:
            raise WorkerUnavailable(f"The worker at {self._view.address} is gone.")
        self._spans += 1
        self._idle.clear()
        conversation = Conversation(
            self._stub.Restore(metadata=tracing.outgoing(), timeout=_LONGEST_SPAN_S), self._view.address, self._stall_s
        )
        try:
            return await conversation.hold(task, packets, on_segment, on_stage)
        finally:
            conversation.end()
            self._spans -= 1
            if not self._spans:
                self._idle.set()
            # It may be free again, or gone.
            self._ask_now.set()

    async def leave(self) -> None:
        """Ask it no more, and hang up when the last span that it has is done."""
        await self._stop_asking()
        await self._idle.wait()
        await self._channel.close()

    async def aclose(self) -> None:
        """Hang up now."""
        await self._stop_asking()
        await self._channel.close()

    async def ask(self) -> None:
        """Learn how it is."""
        try:
            status = decode_status(await self._stub.Status(pb.StatusRequest(), timeout=_STATUS_TIMEOUT_S))
        except grpc.RpcError as failure:
            self._show(replace(self._view, lost=True, detail=why(failure)))
            if handshake_words(failure.details() or ""):
                await self._reopen()
            return
        status = _with_what_it_served(status, self._view.status)
        self._show(replace(self._view, pool=status.pool or self._view.pool, status=status, lost=False, detail=status.detail))

    async def _reopen(self) -> None:
        """A channel keeps the certificates with which it was opened, and the files may have newer ones."""
        try:
            channel = open_channel(self._endpoint.address, self._tls)
        except SettingsError as error:
            _log.warning("certificates can't be read again: %s", error.message)
            return
        before, self._channel = self._channel, channel
        self._stub = worker_pb2_grpc.WorkerStub(channel)
        await before.close()

    async def _ask_always(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._poll_s):
                    await self._ask_now.wait()
            self._ask_now.clear()
            await self.ask()

    async def _stop_asking(self) -> None:
        self._gone = True
        self._asking.cancel()
        await asyncio.wait({self._asking})

    def _show(self, view: WorkerView) -> None:
        before, self._view = self._view, view
        if view != before and not self._gone:
            self._on_change(before, view)


def _with_what_it_served(status: WorkerStatus, before: WorkerStatus | None) -> WorkerStatus:
    # A worker that has just been started again can't say yet; jobs for what it served can be created meanwhile, and wait.
    if before is None or status.models:
        return status
    return replace(status, models=before.models, fingerprint=before.fingerprint, installed=status.installed or before.installed)
