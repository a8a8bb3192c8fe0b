"""A span in the hands of a group of ranks: what they say of it, to their last words."""

import asyncio
from collections.abc import AsyncIterator

from services.common.channel import Message
from services.common.child import error_from_fields
from services.common.errors import ServiceError
from services.inference.messages import LEADER

WAITING = "waiting"
"""Kind of a message that says that another span goes first."""


class FramesEnded(Exception):
    """A group ended a span because the process that decodes closed its end."""


class Order:
    """A span that a group was given."""

    def __init__(self, number: int, ranks: int) -> None:
        """``ranks`` are those of the group."""
        self.number = number
        self._ranks = ranks
        self._last_words: dict[int, Message] = {}
        self._said: asyncio.Queue[Message | ServiceError] = asyncio.Queue()
        self._over = asyncio.Event()

    def hear(self, place: int, message: Message) -> None:
        """What the rank at a place of the group says of it. Of progress, the leader's counts."""
        if message.kind == "progress":
            if place == LEADER:
                self._said.put_nowait(message)
            return
        self._last_words[place] = message
        if message.kind == "failed":
            self._said.put_nowait(error_from_fields(message.fields))
        if len(self._last_words) == self._ranks:
            self._said.put_nowait(self._conclusion())
            self._over.set()

    def wait(self) -> None:
        """The group does something for another span."""
        self._said.put_nowait(Message(WAITING))

    def lose(self, error: ServiceError) -> None:
        """The group is no more."""
        self._said.put_nowait(error)
        self._over.set()

    @property
    def is_over(self) -> bool:
        """Whether no rank does anything for it any more."""
        return self._over.is_set()

    async def wait_over(self) -> None:
        """Wait for :attr:`is_over`."""
        await self._over.wait()

    async def messages(self) -> AsyncIterator[Message]:
        """Messages of kind "progress" and :data:`WAITING`, and "done" at last, when every rank is.

        Raises:
            FramesEnded: no frames come any more; whoever sent them knows why.
            WorkerBroken: a rank died.
            ServiceError: what went wrong in a rank.
        """
        while True:
            word = await self._said.get()
            if isinstance(word, ServiceError):
                raise word
            if word.kind in ("lost", "cancelled"):
                raise FramesEnded
            yield word
            if word.kind == "done":
                return

    def _conclusion(self) -> Message:
        last = self._last_words[LEADER]
        if last.kind != "done":
            return last
        peak_bytes = max(message.fields.get("peak_memory_bytes", 0) for message in self._last_words.values())
        return Message("done", last.fields | {"peak_memory_bytes": peak_bytes})
