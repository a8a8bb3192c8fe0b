"""What fetching asks of a place that has a source."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A source, from some byte on."""

    offset: int
    """Of the first byte that comes: the one that was asked for, or 0 where it can't be gone on with."""

    size_bytes: int
    """Of the whole; 0: the place doesn't say."""

    tag: str
    """Names this version of the content; empty: it can't be gone on with."""

    pieces: AsyncIterator[bytes]
    """The bytes; reading them raises Unavailable where they break off."""


class Remote(Protocol):
    """A source somewhere else."""

    def open(self, offset: int, tag: str) -> AbstractAsyncContextManager[Stream]:
        """Read it from ``offset`` on, where it still is the version with ``tag``; else from its beginning.

        Raises:
            InvalidInput: it isn't there, or can't be had.
            Unavailable: perhaps later.
        """
