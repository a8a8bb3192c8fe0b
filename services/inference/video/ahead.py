"""What one thread has finished and the next one has not begun, bounded by bytes: so that neither waits for the other's bursts."""

import threading
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Ahead(Generic[T]):
    """One thread puts and closes, another iterates."""

    def __init__(self, limit_bytes: int) -> None:
        """``limit_bytes`` may wait, and one item in any case."""
        self._limit_bytes = limit_bytes
        self._items: deque[tuple[T, int]] = deque()
        self._bytes = 0
        self._closed = False
        self._changed = threading.Condition()

    def put(self, item: T, size_bytes: int) -> None:
        """Hand over one item; waits while it would be too much."""
        with self._changed:
            self._changed.wait_for(lambda: not self._items or self._bytes + size_bytes <= self._limit_bytes)
            self._items.append((item, size_bytes))
            self._bytes += size_bytes
            self._changed.notify_all()

    def close(self) -> None:
        """No more items: whoever iterates gets those that are there and stops."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self) -> Iterator[T]:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._items or self._closed)
                if not self._items:
                    return
                item, size_bytes = self._items.popleft()
                self._bytes -= size_bytes
                self._changed.notify_all()
            yield item
