"""Who gets the next free group of ranks: previews first, then in the order in which spans came."""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from services.common.errors import QueueFull
from services.inference.groups import Group, Groups

_RETRY_AFTER_S = 5.0


@dataclass(order=True, slots=True)
class _Waiting:
    batch: bool
    number: int
    turn: "asyncio.Future[Group]" = field(compare=False)


class Turns:
    """The one queue of a worker."""

    def __init__(self, groups: Groups, limit: int, on_change: Callable[[], None]) -> None:
        """``limit`` spans may wait; ``on_change`` is called when somebody waits, begins or ends."""
        self._groups = groups
        self._limit = limit
        self._on_change = on_change
        self._waiting: list[_Waiting] = []
        self._busy: set[Group] = set()
        self._numbers = itertools.count()
        groups.on_change(self._serve)

    @property
    def waiting(self) -> int:
        """Spans that wait."""
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """Groups that have a span."""
        return len(self._busy)

    @property
    def free(self) -> int:
        """Groups that could take a span now."""
        return sum(self._is_free(group) for group in self._groups.all)

    def check_room(self) -> None:
        """Raises QueueFull where one more span would have to wait behind too many."""
        if not self.free and len(self._waiting) >= self._limit:
            raise QueueFull(
                f"This worker has its hands full: {self.waiting} spans wait already. Try again in a few seconds.",
                retry_after_s=_RETRY_AFTER_S,
            )

    def join(self, *, preview: bool) -> "asyncio.Future[Group]":
        """Wait in the queue: the future becomes a group. Who has joined calls :meth:`leave` or :meth:`give_back` in the end."""
        entry = _Waiting(not preview, next(self._numbers), asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._serve()
        return entry.turn

    def leave(self, turn: "asyncio.Future[Group]") -> None:
        """Wait no more; if it was one's turn already, the group goes to the next."""
        self._waiting = [entry for entry in self._waiting if entry.turn is not turn]
        if turn.done():
            self.give_back(turn.result())
        self._on_change()

    def give_back(self, group: Group) -> None:
        """The group has nothing to do any more."""
        self._busy.discard(group)
        self._serve()

    def _serve(self) -> None:
        free = [group for group in self._groups.all if self._is_free(group)]
        for group, entry in zip(free, sorted(self._waiting), strict=False):
            self._waiting.remove(entry)
            self._busy.add(group)
            entry.turn.set_result(group)
        self._on_change()

    def _is_free(self, group: Group) -> bool:
        return group.ready is not None and group not in self._busy
