"""Who gets the next free group of ranks: previews first, then in the order in which spans came.

A preview takes a group that is free; where there is none, a place beside a batch span, which waits meanwhile.
"""

import asyncio
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

from services.common.errors import QueueFull
from services.inference.groups import Group, Groups

_RETRY_AFTER_S = 1.0


@dataclass(frozen=True, slots=True)
class Seat:
    """A place at a group of ranks."""

    group: Group
    """The ranks."""

    beside: bool
    """In the middle of a batch span."""


@dataclass(order=True, slots=True)
class _Waiting:
    batch: bool
    number: int
    turn: "asyncio.Future[Seat]" = field(compare=False)


class Turns:
    """The one queue of a worker."""

    def __init__(self, groups: Groups, limit: int, on_change: Callable[[], None]) -> None:
        """``limit`` spans may wait; ``on_change`` is called when somebody waits, begins or ends."""
        self._groups = groups
        self._limit = limit
        self._on_change = on_change
        self._waiting: list[_Waiting] = []
        self._batch: dict[Group, bool] = {}
        """Groups that have a span, and whether it is a batch span."""
        self._beside: set[Group] = set()
        self._numbers = itertools.count()
        groups.on_change(self._serve)

    @property
    def waiting(self) -> int:
        """Spans that wait."""
        return len(self._waiting)

    @property
    def busy(self) -> int:
        """Spans that have a group."""
        return len(self._batch) + len(self._beside)

    @property
    def free(self) -> int:
        """Groups that could take a span now."""
        return sum(self._is_free(group) for group in self._groups.all)

    def check_room(self, *, preview: bool) -> None:
        """Raises QueueFull where one more span would have to wait behind too many."""
        if self._seat(preview=preview) is None and len(self._waiting) >= self._limit:
            raise QueueFull(
                f"This worker has its hands full: {self.waiting} spans wait already. Try again in a few seconds.",
                retry_after_s=_RETRY_AFTER_S,
            )

    def join(self, *, preview: bool) -> "asyncio.Future[Seat]":
        """Wait in the queue: the future becomes a seat. Who has joined calls :meth:`leave` or :meth:`give_back` in the end."""
        entry = _Waiting(not preview, next(self._numbers), asyncio.get_running_loop().create_future())
        self._waiting.append(entry)
        self._serve()
        return entry.turn

    def leave(self, turn: "asyncio.Future[Seat]") -> None:
        """Wait no more; if it was one's turn already, the seat goes to the next."""
        self._waiting = [entry for entry in self._waiting if entry.turn is not turn]
        if turn.done():
            self.give_back(turn.result())
        self._on_change()

    def give_back(self, seat: Seat) -> None:
        """Nothing is done there any more."""
        if seat.beside:
            self._beside.discard(seat.group)
        else:
            self._batch.pop(seat.group, None)
        self._serve()

    def _serve(self) -> None:
        for entry in sorted(self._waiting):
            seat = self._seat(preview=not entry.batch)
            if seat is not None:
                self._waiting.remove(entry)
                self._take(seat, batch=entry.batch)
                entry.turn.set_result(seat)
        self._on_change()

    def _seat(self, *, preview: bool) -> Seat | None:
        free = next((group for group in self._groups.all if self._is_free(group)), None)
        if free is not None:
            return Seat(free, beside=False)
        interrupted = (
            group for group in self._groups.all if self._batch.get(group) and group not in self._beside and group.ready
        )
        return next((Seat(group, beside=True) for group in interrupted), None) if preview else None

    def _take(self, seat: Seat, *, batch: bool) -> None:
        if seat.beside:
            self._beside.add(seat.group)
        else:
            self._batch[seat.group] = batch

    def _is_free(self, group: Group) -> bool:
        return group.ready is not None and group not in self._batch
