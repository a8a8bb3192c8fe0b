"""How the ranks of a group go through a span in step. Imports no torch.

The leader talks to the server and to the process that decodes and encodes. What it hears of a span it tells its peers, and at
each point where work can stop it tells them whether to go on. So all ranks do the same in the same order and stop at the same
point, and nobody waits in an exchange for a rank that has stopped. The words go over sockets of their own: they wait for no
GPU, and a rank that has ended is noticed at once. A rank alone is a leader without peers.

Where a span can pause, a preview that came meanwhile goes first, on all ranks: the span that it interrupts waits in the middle of
its own call, with all its state.
"""

import contextlib
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from services.common.channel import Channel, ChannelClosed, Message, wait_any
from services.common.errors import InternalError, JobCancelled, WorkerBroken
from services.inference.frames import MAX_BATCH_BYTES, Frames, frames_of, send_frames
from services.inference.messages import RestoreOrder

Interlude = Callable[[RestoreOrder], None]
"""Restores a preview while the span that calls it waits."""


class FramesLost(Exception):
    """The process that decodes and encodes has closed its end."""


class Desk:
    """What the server tells the rank that leads."""

    def __init__(self, control: Channel) -> None:
        self._control = control
        self._orders: deque[RestoreOrder] = deque()
        self._cancelled: set[int] = set()

    def next_order(self) -> RestoreOrder:
        """Wait for the next span."""
        while not self._orders:
            self._hear()
        order = self._orders.popleft()
        # A word to stop what was over by then came too late.
        self._cancelled = {number for number in self._cancelled if number >= order.number}
        return order

    def next_preview(self) -> RestoreOrder | None:
        """A preview that waited at the last look, if there was one."""
        preview = next((order for order in self._orders if order.preview), None)
        if preview is not None:
            self._orders.remove(preview)
        return preview

    def is_cancelled(self, number: int) -> bool:
        """Whether the server wanted a span stopped at the last look."""
        return number in self._cancelled

    def look(self) -> None:
        """Hear what the server has said by now."""
        while self._control.waiting():
            self._hear()

    def wait(self, other: Channel) -> None:
        """Wait until the server, or the ``other`` side, says something."""
        wait_any(self._control, other)

    def _hear(self) -> None:
        message = self._control.receive()
        if message.kind == "restore":
            self._orders.append(RestoreOrder(**message.fields))
        else:
            self._cancelled.add(message.fields["number"])


class Part(Protocol):
    """What a rank has to do with others during a span. Its methods raise WorkerBroken when another rank is gone."""

    def frames(self) -> Iterator[Frames]:
        """The span's frames, (T, H, W, 3) each time, as they come. Raises FramesLost or JobCancelled."""

    def checkpoint(self) -> None:
        """Called where work can stop, by every rank of the group at the same points. Raises JobCancelled to stop it."""

    def pause(self) -> None:
        """The same between two slices, where a preview may go first."""

    def give(self, frames: Frames) -> None:
        """Take (T, H, W, 3) restored frames. Raises FramesLost."""

    def end(self) -> None:
        """No more frames. Raises FramesLost."""


class Leader:
    """The part of the rank that leads."""

    def __init__(
        self, desk: Desk, peers: Sequence[Channel], video: Channel, order: RestoreOrder, interlude: Interlude
    ) -> None:  # fmt: skip
        self._desk = desk
        self._peers = peers
        self._video = video
        self._order = order
        self._interlude = interlude

    def frames(self) -> Iterator[Frames]:
        """From the process that decodes; passed on to the peers."""
        while (message := self._receive()).kind == "frames":
            frames = frames_of(message)
            for peer in self._peers:
                with _while_together():
                    send_frames(peer, frames)
            yield frames
        self.tell("end")

    def checkpoint(self) -> None:
        """Stop if the server has said so."""
        self._desk.look()
        self._stop_if_cancelled()
        self.tell("on")

    def pause(self) -> None:
        """Stop if the server has said so; else let one preview go first."""
        self._desk.look()
        self._stop_if_cancelled()
        self._step_aside()
        self.tell("on")

    def give(self, frames: Frames) -> None:
        """To the process that encodes, in several messages where they are large."""
        step = max(1, MAX_BATCH_BYTES // frames[0].nbytes) if len(frames) else 1
        for start in range(0, len(frames), step):
            with _while_connected():
                send_frames(self._video, frames[start : start + step])

    def end(self) -> None:
        """To the process that encodes."""
        with _while_connected():
            self._video.send("end")

    def tell(self, kind: str, **fields: Any) -> None:
        """Say a word to all peers."""
        for peer in self._peers:
            with _while_together():
                peer.send(kind, **fields)

    def _receive(self) -> Message:
        while not self._video.waiting():
            self._desk.look()
            self._stop_if_cancelled()
            if not self._step_aside():
                self._desk.wait(self._video)
        with _while_connected():
            return self._video.receive()

    def _stop_if_cancelled(self) -> None:
        if self._desk.is_cancelled(self._order.number):
            raise JobCancelled("The span was cancelled.")

    def _step_aside(self) -> bool:
        # One at a time, so that the span goes on by a slice at least between two of them; and none in the middle of another.
        preview = None if self._order.preview else self._desk.next_preview()
        if preview is not None:
            self._interlude(preview)
        return preview is not None


class Peer:
    """The part of a rank that follows its leader."""

    def __init__(self, leader: Channel, number: int, interlude: Interlude) -> None:
        """``number``: of the order."""
        self._leader = leader
        self._number = number
        self._interlude = interlude

    def frames(self) -> Iterator[Frames]:
        """From the leader."""
        while (message := self._hear("frames", "end")).kind == "frames":
            yield frames_of(message)

    def checkpoint(self) -> None:
        """Stop if the leader does."""
        self._hear("on")

    def pause(self) -> None:
        """As the leader does."""
        self._hear("on")

    def give(self, frames: Frames) -> None:
        """Drop them: the leader has the same."""

    def end(self) -> None:
        """As the leader says it for all."""

    def _hear(self, *expected: str) -> Message:
        while True:
            with _while_together():
                message = self._leader.receive()
            if message.kind == "restore":
                self._interlude(RestoreOrder(**message.fields))
            elif message.kind != "stop":
                break
            elif message.fields["number"] == self._number:
                raise JobCancelled("The leader stopped.")
        if message.kind not in expected:
            raise InternalError(f"a rank is out of step: it heard {message.kind} in place of {' or '.join(expected)}")
        return message


@contextlib.contextmanager
def leading(desk: Desk, peers: Sequence[Channel], order: RestoreOrder, interlude: Interlude) -> Iterator[Leader]:
    """Begin a span and bring the peers along; whatever ends the block early ends it for them too.

    Raises:
        FramesLost: the process that decodes and encodes is gone.
    """
    with socket.socket(socket.AF_UNIX) as end:
        try:
            end.connect(order.path)
        except OSError as error:
            raise FramesLost from error
        leader = Leader(desk, peers, Channel(end), order, interlude)
        leader.tell("restore", **asdict(order))
        try:
            yield leader
        except Exception:
            leader.tell("stop", number=order.number)
            raise


@contextlib.contextmanager
def _while_connected() -> Iterator[None]:
    try:
        yield
    except ChannelClosed as error:
        raise FramesLost from error


@contextlib.contextmanager
def _while_together() -> Iterator[None]:
    try:
        yield
    except ChannelClosed as error:
        raise WorkerBroken("The group of ranks is broken: a rank of it is gone.") from error
