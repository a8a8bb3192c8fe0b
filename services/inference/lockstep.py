"""How the ranks of a group go through a span in step. Imports no torch.

The leader talks to the server and to the process that decodes and encodes. What it hears of a span it tells its peers, and at
each point where work can stop it tells them whether to go on. So all ranks do the same in the same order and stop at the same
point, and nobody waits in an exchange for a rank that has stopped. The words go over sockets of their own: they wait for no
GPU, and a rank that has ended is noticed at once. A rank alone is a leader without peers.
"""

import contextlib
import socket
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from services.common.channel import Channel, ChannelClosed, Message
from services.common.errors import InternalError, JobCancelled, WorkerBroken
from services.inference.frames import MAX_BATCH_BYTES, Frames, frames_of, send_frames
from services.inference.messages import RestoreOrder


class FramesLost(Exception):
    """The process that decodes and encodes has closed its end."""


class Part(Protocol):
    """What a rank has to do with others during a span. Its methods raise WorkerBroken when another rank is gone."""

    def frames(self) -> Iterator[Frames]:
        """The span's frames, (T, H, W, 3) each time, as they come. Raises FramesLost or JobCancelled."""

    def checkpoint(self) -> None:
        """Called where work can stop, by every rank of the group at the same points. Raises JobCancelled to stop it."""

    def give(self, frames: Frames) -> None:
        """Take (T, H, W, 3) restored frames. Raises FramesLost."""

    def end(self) -> None:
        """No more frames. Raises FramesLost."""


class Leader:
    """The part of the rank that leads."""

    def __init__(self, control: Channel, peers: Sequence[Channel], video: Channel, number: int) -> None:
        self._control = control
        self._peers = peers
        self._video = video
        self._number = number

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
        while self._control.waiting():
            message = self._control.receive()
            if message.kind == "cancel" and message.fields["number"] == self._number:
                raise JobCancelled("The span was cancelled.")
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
        with _while_connected():
            return self._video.receive()


class Peer:
    """The part of a rank that follows its leader."""

    def __init__(self, leader: Channel) -> None:
        self._leader = leader

    def frames(self) -> Iterator[Frames]:
        """From the leader."""
        while (message := self._hear("frames", "end")).kind == "frames":
            yield frames_of(message)

    def checkpoint(self) -> None:
        """Stop if the leader does."""
        self._hear("on")

    def give(self, frames: Frames) -> None:
        """Drop them: the leader has the same."""

    def end(self) -> None:
        """As the leader says it for all."""

    def _hear(self, *expected: str) -> Message:
        with _while_together():
            message = self._leader.receive()
        if message.kind == "stop":
            raise JobCancelled("The leader stopped.")
        if message.kind not in expected:
            raise InternalError(f"a rank is out of step: it heard {message.kind} in place of {' or '.join(expected)}")
        return message


@contextlib.contextmanager
def leading(control: Channel, peers: Sequence[Channel], order: RestoreOrder) -> Iterator[Leader]:
    """Begin a span and bring the peers along; whatever ends the block early ends it for them too.

    Raises:
        FramesLost: the process that decodes and encodes is gone.
    """
    with socket.socket(socket.AF_UNIX) as end:
        try:
            end.connect(order.path)
        except OSError as error:
            raise FramesLost from error
        leader = Leader(control, peers, Channel(end), order.number)
        leader.tell("restore", **asdict(order))
        try:
            yield leader
        except Exception:
            leader.tell("stop")
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
