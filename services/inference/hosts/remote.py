"""A rank host, as the worker sees it whose ranks it runs."""

import asyncio
import contextlib
import socket
import types
from collections.abc import AsyncIterator, Callable, Sequence
from functools import partial
from importlib import metadata
from typing import Any, Self

import grpc
from grpc_status import rpc_status

from services.common.channel import Buffer, Message
from services.common.child import ChildDied, error_from_fields
from services.common.errors import ServiceError, WorkerBroken
from services.common.pb.seedvr2.v1 import rank_host_pb2 as pb
from services.common.pb.seedvr2.v1 import rank_host_pb2_grpc
from services.common.rpc.ending import CallEnding, why
from services.common.rpc.server import PIECE_BYTES, open_channel
from services.common.rpc.status import error_of
from services.common.rpc.tls import ChannelTls
from services.inference.hosts.words import message_of, words_of
from services.inference.machines import Events
from services.inference.messages import LoadOrder
from services.inference.ranks import Loss, MachineLost, Start

_TRY_S, _PAUSE_S = 30.0, 1.0


class RemoteHost:
    """Another machine with ranks of this worker; see :class:`services.inference.machines.Host`."""

    def __init__(self, address: str, tls: ChannelTls | None = None) -> None:
        """``tls`` None: without."""
        self._address = address
        self._tls = tls

    @contextlib.asynccontextmanager
    async def life(
        self, orders: Sequence[LoadOrder], link: socket.socket, events: Events
    ) -> AsyncIterator[Callable[[LoadOrder], Start]]:
        """Hold its ranks until the block ends."""
        link.setblocking(False)
        async with contextlib.AsyncExitStack() as stack:
            life = await self._reach(orders, events, stack)
            tasks = await stack.enter_async_context(asyncio.TaskGroup())
            helpers = [tasks.create_task(life.listen(events)), tasks.create_task(life.pass_on(link))]
            try:
                yield lambda order: partial(life.start, order.index)
            finally:
                for helper in helpers:
                    helper.cancel()

    async def _reach(self, orders: Sequence[LoadOrder], events: Events, stack: contextlib.AsyncExitStack) -> "_RemoteLife":
        """Try until it is there; ``stack`` ends what was begun with it."""
        while True:
            async with contextlib.AsyncExitStack() as trial:
                try:
                    life = await self._begin(orders, trial)
                    await stack.enter_async_context(trial.pop_all())
                    return life
                except ServiceError as error:
                    reason = error.message.rstrip(".")
                except TimeoutError:
                    reason = f"no answer within {_TRY_S:g} s"
                except grpc.RpcError as failure:
                    reason = _reason(failure)
            events.waiting(Loss(index=orders[0].index, why=f"waiting for the rank host at {self._address}: {reason}"))
            await asyncio.sleep(_PAUSE_S)

    async def _begin(self, orders: Sequence[LoadOrder], stack: contextlib.AsyncExitStack) -> "_RemoteLife":
        # A channel of its own each time: a name may have got another address, and files of TLS may be new.
        channel = await stack.enter_async_context(open_channel(self._address, self._tls, near=True))
        stub: Any = rank_host_pb2_grpc.RankHostStub(channel)
        call = stub.Live()
        stack.callback(call.cancel)
        life = _RemoteLife(call, self._address, orders)
        async with asyncio.timeout(_TRY_S):
            await life.begin()
        return life


class _RemoteLife:
    """One call to a rank host."""

    def __init__(self, call: Any, address: str, orders: Sequence[LoadOrder]) -> None:
        self._call = call
        self._ending = CallEnding(call)
        self._address = address
        self._orders = orders
        self._said: dict[int, asyncio.Queue[Message | Exception]] = {order.index: asyncio.Queue() for order in orders}
        self._writing = asyncio.Lock()

    async def begin(self) -> None:
        """Have it start the processes. Raises RpcError, or ServiceError where it won't."""
        ranks = [pb.RankStart(index=order.index, threads=order.threads) for order in self._orders]
        await self._write(pb.LiveRequest(start=pb.LifeStart(ranks=ranks)))
        try:
            answer = await self._call.read()
        except grpc.RpcError as failure:
            raise await self._ending.failure(failure) from failure
        if answer is grpc.aio.EOF:
            raise WorkerBroken("It ended the call.")
        ours, theirs = metadata.version("seedvr2"), answer.hello.version
        if theirs != ours:
            raise WorkerBroken(f"It is of version {theirs or 'unknown'}, and this worker of {ours}.")

    async def start(self, index: int) -> "_RemoteProcess":
        """The process of one of its ranks."""
        return _RemoteProcess(self, index, self._said[index])

    async def listen(self, events: Events) -> None:
        """Hear what the host says, to the end of the call."""
        reason = "it ended the call"
        try:
            while (answer := await self._call.read()) is not grpc.aio.EOF:
                self._take(answer, events)
        except grpc.RpcError as failure:
            reason = _reason(await self._ending.failure(failure))
        for said in self._said.values():
            said.put_nowait(MachineLost(f"its rank host at {self._address} was lost ({reason})"))

    async def pass_on(self, link: socket.socket) -> None:
        """What the leading rank says to its peers, as long as both are there."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(ConnectionResetError):
            while data := await loop.sock_recv(link, PIECE_BYTES):
                await self._write(pb.LiveRequest(link=data))

    async def say(self, index: int, message: Message) -> None:
        """To a rank. If the call is over, whoever listens learns why."""
        await self._write(pb.LiveRequest(words=words_of(index, message)))

    async def _write(self, request: pb.LiveRequest) -> None:
        async with self._writing:
            with contextlib.suppress(grpc.RpcError, asyncio.InvalidStateError):
                await self._call.write(request)

    def _take(self, answer: pb.LiveResponse, events: Events) -> None:
        kind = answer.WhichOneof("message")
        if kind == "words":
            self._said[answer.words.rank].put_nowait(message_of(answer.words))
        elif kind == "ended":
            self._said[answer.ended.rank].put_nowait(ChildDied(answer.ended.how, answer.ended.signal_number))
        elif kind == "leaving":
            events.leaving(Loss(index=self._orders[0].index, why=f"its rank host at {self._address} is about to stop"))


class _RemoteProcess:
    """The process of a rank there; it ends with the call. See :class:`services.inference.ranks.RankProcess`."""

    pid: int | None = None

    def __init__(self, life: _RemoteLife, index: int, said: "asyncio.Queue[Message | Exception]") -> None:
        self._life = life
        self._index = index
        self._said = said

    async def send(self, kind: str, payload: Buffer = b"", **fields: Any) -> None:
        """Say something to it."""
        await self._life.say(self._index, Message(kind, fields, bytes(payload)))

    async def receive(self) -> Message:
        """Wait for what it says."""
        said = await self._said.get()
        if isinstance(said, Exception):
            raise said
        if said.kind == "error":
            raise error_from_fields(said.fields)
        return said

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None
    ) -> None:
        """Nothing is left to do: a group ends as a whole, and with it the call."""


def _reason(failure: grpc.RpcError) -> str:
    """Why a call ended, in the host's words where it said any."""
    if rpc_status.from_call(failure) is not None:
        return error_of(failure).message.rstrip(".")
    return why(failure)
