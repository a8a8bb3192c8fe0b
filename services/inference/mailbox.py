"""A bounded handover between two tasks that says how it ended."""

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """One side puts and closes, the other iterates."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: deque[T] = deque()
        self._closed = False
        self._error: Exception | None = None
        self._changed = asyncio.Condition()

    async def put(self, item: T) -> None:
        """Hand over one item; waits while ``capacity`` of them are untaken."""
        async with self._changed:
            await self._changed.wait_for(lambda: len(self._items) < self._capacity or self._closed)
            if not self._closed:
                self._items.append(item)
                self._changed.notify_all()

    async def close(self, error: Exception | None = None) -> None:
        """No more items: the reader gets those that are there and stops, or gets ``error`` at once."""
        async with self._changed:
            self._closed, self._error = True, error
            self._changed.notify_all()

    async def __aiter__(self) -> AsyncIterator[T]:
        while True:
            async with self._changed:
                await self._changed.wait_for(lambda: self._items or self._closed)
                if self._error is not None:
                    raise self._error
                if not self._items:
                    return
                item = self._items.popleft()
                self._changed.notify_all()
            yield item
