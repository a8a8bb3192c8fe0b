"""The ranks of one call to a rank host: started, told what the leader says, heard, and ended with the call."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from importlib import metadata

from services.common.channel import ChannelGarbled, Message, channel_pair
from services.common.child import Child, ChildDied, error_fields
from services.common.errors import ChunkOutOfOrder, ServiceError, WorkerBroken
from services.common.metrics import RankHostMetrics
from services.common.pb.seedvr2.v1 import rank_host_pb2 as pb
from services.inference.hosts.words import message_of, words_of
from services.inference.launch import start_rank
from services.inference.ranks import resident_bytes

Write = Callable[[pb.LiveResponse], Awaitable[None]]
"""Sends an answer; one at a time."""


class HostedLife:
    """Ranks of a worker whose server is on another machine."""

    def __init__(self, ranks: Sequence[pb.RankStart], module: str, metrics: RankHostMetrics) -> None:
        """``module`` is what each process runs."""
        self._ranks = ranks
        self._module = module
        self._metrics = metrics
        self._children: dict[int, Child] = {}
        self._links: list[socket.socket] = []
        self._replaced = asyncio.Event()
        self._leaving = asyncio.Event()
        self._writing = asyncio.Lock()

    def give_way(self) -> None:
        """Another call takes the place of this one."""
        self._replaced.set()

    def leave(self) -> None:
        """Tell the leader that this host is about to stop."""
        self._leaving.set()

    async def run(self, requests: AsyncIterator[pb.LiveRequest], write: Write) -> None:
        """To the end of the call, or until it is cancelled; no process is left then.

        Raises:
            WorkerBroken: the ranks can't be started here, or another call wants them.
            ChunkOutOfOrder: a request can't stand where it does.
        """
        async with contextlib.AsyncExitStack() as stack:
            await write(pb.LiveResponse(hello=pb.HostHello(version=metadata.version("seedvr2"))))
            for rank in self._ranks:
                await self._start(rank, stack)
            try:
                async with asyncio.TaskGroup() as tasks:
                    helpers = [tasks.create_task(self._relay(index, child, write)) for index, child in self._children.items()]
                    helpers += [tasks.create_task(self._give_way()), tasks.create_task(self._tell_leaving(write))]
                    await self._follow(requests)
                    for helper in helpers:
                        helper.cancel()
            except ExceptionGroup as errors:
                raise errors.exceptions[0] from None
            finally:
                # All at once: leaving their blocks waits for one after the other.
                for child in self._children.values():
                    child.kill()

    async def _start(self, rank: pb.RankStart, stack: contextlib.AsyncExitStack) -> None:
        ours, theirs = channel_pair()
        ours.setblocking(False)
        self._links.append(stack.enter_context(ours))
        try:
            child = await start_rank(self._module, index=rank.index, threads=rank.threads, links=[theirs], spread=True)
        except OSError as error:
            raise WorkerBroken(f"Rank {rank.index} can't be started: {error.strerror}.") from error
        self._children[rank.index] = await stack.enter_async_context(child)
        memory = self._metrics.memory.labels(rank.index)
        memory.set_function(lambda: resident_bytes(child.pid))
        self._metrics.ranks.inc()
        stack.callback(self._metrics.ranks.dec)
        stack.callback(memory.set_function, lambda: 0)

    async def _relay(self, index: int, child: Child, write: Write) -> None:
        """What a rank says, to its last words."""
        try:
            while True:
                await self._answer(pb.LiveResponse(words=words_of(index, await child.receive())), write)
        except ServiceError as error:
            await self._answer(pb.LiveResponse(words=words_of(index, Message("error", error_fields(error)))), write)
        except ChildDied as death:
            await self._end(index, str(death), death.signal_number, write)
        except ChannelGarbled as error:
            child.kill()
            await self._end(index, str(error), 0, write)

    async def _end(self, index: int, how: str, signal_number: int, write: Write) -> None:
        await self._answer(pb.LiveResponse(ended=pb.RankEnded(rank=index, how=how, signal_number=signal_number)), write)

    async def _answer(self, answer: pb.LiveResponse, write: Write) -> None:
        async with self._writing:
            await write(answer)

    async def _follow(self, requests: AsyncIterator[pb.LiveRequest]) -> None:
        async for request in requests:
            kind = request.WhichOneof("message")
            if kind == "link":
                await asyncio.gather(*(self._pass_on(link, request.link) for link in self._links))
            elif kind == "words" and request.words.rank in self._children:
                # If the rank has ended, its relay tells it.
                with contextlib.suppress(ChildDied):
                    message = message_of(request.words)
                    await self._children[request.words.rank].send(message.kind, message.payload, **message.fields)
            else:
                raise ChunkOutOfOrder(f"A {kind or 'empty message'} can't stand here in a life of ranks.")

    async def _pass_on(self, link: socket.socket, data: bytes) -> None:
        # A rank that has ended reads no more; its relay tells it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            await asyncio.get_running_loop().sock_sendall(link, data)

    async def _give_way(self) -> None:
        await self._replaced.wait()
        raise WorkerBroken("Another call took this rank host over.")

    async def _tell_leaving(self, write: Write) -> None:
        await self._leaving.wait()
        await self._answer(pb.LiveResponse(leaving=pb.HostLeaving()), write)
