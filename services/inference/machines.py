"""Where the ranks of a group run: here, and on other machines, whose rank hosts start them.

Before a life of a group begins all its machines are there, and it has a place where its ranks meet. The rank that leads has a
socket to each peer on this machine, and one to each other machine, which passes on what it hears to all its ranks.
"""

import contextlib
import itertools
import socket
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

from services.common.channel import channel_pair
from services.inference.launch import RANK_MODULE, start_rank
from services.inference.messages import LoadOrder
from services.inference.ranks import Loss, Start

HERE = 0
"""Number of this machine in a :class:`LoadOrder`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Events:
    """Who hears of machines."""

    waiting: Callable[[Loss], None]
    """A machine isn't there; which rank is missing for it, and why."""

    leaving: Callable[[Loss], None]
    """A machine is about to stop; which rank goes with it."""


class Host(Protocol):
    """Another machine that runs ranks for this one."""

    def life(
        self, orders: Sequence[LoadOrder], link: socket.socket, events: Events
    ) -> AbstractAsyncContextManager[Callable[[LoadOrder], Start]]:
        """Wait until it is there, and hold it; what starts each of these ranks on it. The end of the block ends them.

        Args:
            orders: those of its ranks.
            link: what comes out of it goes to all of them.
            events: who hears of it.
        """


@dataclass(frozen=True, slots=True, kw_only=True)
class Life:
    """What the ranks of a group need for one life."""

    meeting: str
    """Where they find each other, as PyTorch takes it; empty for a rank alone."""

    starts: tuple[Start, ...]
    """What starts each of them."""


class Machines:
    """All machines of a group."""

    def __init__(self, meetings: Path, *, module: str = RANK_MODULE, hosts: Sequence[Host] = (), address: str = "") -> None:
        """``meetings``: a directory of this server alone; ``module``: what each process runs.
        ``address``: host:port where ranks meet that are not all here."""
        self._meetings = meetings
        self._module = module
        self._hosts = hosts
        self._address = address
        self._lives = itertools.count(1)

    @contextlib.asynccontextmanager
    async def life(self, orders: Sequence[LoadOrder], events: Events) -> AsyncIterator[Life]:
        """One life of the ranks with these orders, the leader's first; all machines are there when it begins."""
        here = [order for order in orders if order.machine == HERE]
        near, far = [channel_pair() for _ in here[1:]], [channel_pair() for _ in self._hosts]
        async with contextlib.AsyncExitStack() as stack:
            for end in itertools.chain.from_iterable((*near, *far)):
                stack.callback(end.close)
            meeting = stack.enter_context(self._meeting(orders))
            links = [[leader for leader, _ in (*near, *far)], *([peer] for _, peer in near)]
            starts = [self._start(order, ends) for order, ends in zip(here, links, strict=True)]
            for number, (host, (_, link)) in enumerate(zip(self._hosts, far, strict=True), HERE + 1):
                there = [order for order in orders if order.machine == number]
                starter = await stack.enter_async_context(host.life(there, link, events))
                starts += [starter(order) for order in there]
            yield Life(meeting=meeting, starts=tuple(starts))

    def _start(self, order: LoadOrder, links: Sequence[socket.socket]) -> Start:
        spread = bool(self._hosts)
        return partial(start_rank, self._module, index=order.index, threads=order.threads, links=links, spread=spread)

    @contextlib.contextmanager
    def _meeting(self, orders: Sequence[LoadOrder]) -> Iterator[str]:
        if self._hosts or len(orders) == 1:
            yield f"tcp://{self._address}" if self._hosts else ""
            return
        path = self._meetings / f"ranks-{orders[0].index}-{next(self._lives)}"
        try:
            yield f"file://{path}"
        finally:
            path.unlink(missing_ok=True)
