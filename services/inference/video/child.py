"""The process that decodes and encodes one span: ``python -m services.inference.video.child``, started by ``process.py``.

Four threads: one decodes the server's packets, one gives frames to the rank, one takes restored frames from it, one encodes them
and gives segments to the server. A rank takes and gives a window of frames at a time, so frames wait for it, and for the encoder,
up to a limit. Whoever can't go on waits for its neighbour; that is all the flow control there is.
"""

from __future__ import annotations

import contextlib
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np

from services.common.channel import Buffer, Channel, ChannelClosed, Message
from services.common.child import run_child
from services.common.errors import InternalError, InvalidVideo, ServiceError
from services.common.logs import log_context
from services.common.media import Packet
from services.common.pixels import PIXEL_FORMATS
from services.common.plan import Segment
from services.inference.frames import MAX_BATCH_BYTES, MAX_BATCH_FRAMES, Frames, frames_of, send_frames
from services.inference.messages import VideoOrder, packet_of, video_order
from services.inference.video.ahead import Ahead
from services.inference.video.colour import FrameReader, colours_of
from services.inference.video.decode import Decoder
from services.inference.video.encode import SpanEncoder
from services.inference.video.facts import encoder_facts
from services.inference.video.hardware import opened_encoders
from services.inference.video.match import FrameMatcher

_log = logging.getLogger(__name__)

_SOURCE_BYTES = 256 << 20
"""Of decoded frames that wait for the rank."""

_RESTORED_BYTES = 512 << 20
"""Of restored frames that wait for the encoder: a window of 84 frames of 1920x1080."""


class _RankLost(Exception):
    """The rank has closed its end; the server knows why."""


def main(channel: Channel) -> None:
    """Answer one message, "facts", "encoders" or "span", and end."""
    message = channel.receive()
    if message.kind == "facts":
        channel.send("facts", facts=encoder_facts())
    elif message.kind == "encoders":
        channel.send("encoders", encoders=opened_encoders())
    else:
        order = video_order(message.fields)
        with log_context(**order.ids):
            _Span(channel, order).run()


class _Span:
    def __init__(self, channel: Channel, order: VideoOrder) -> None:
        self._channel = channel
        self._order = order
        self._task = order.task
        self._matcher: FrameMatcher[Frames] = FrameMatcher(
            self._task.frame_pts, by_order=self._task.by_order, context_frames=self._task.context_frames
        )
        self._decoded: Ahead[Frames] = Ahead(_SOURCE_BYTES)
        self._restored: Ahead[Frames] = Ahead(_RESTORED_BYTES)
        self._sending = threading.RLock()
        self._ended: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def run(self) -> None:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(self._order.path)
            listener.listen(1)
            self._tell("listening")
            rank = Channel(listener.accept()[0])
        try:
            self._work(rank)
        except _RankLost:
            self._tell("lost")
        except MemoryError as error:
            raise InvalidVideo("Decoding the video needs more memory than it may have here; send a smaller one.") from error

    def _work(self, rank: Channel) -> None:
        works = (self._decode, lambda: self._give(rank), lambda: self._take(rank), self._encode)
        for work in works:
            threading.Thread(target=self._note_end, args=(work,), daemon=True).start()
        for _ in works:
            error = self._ended.get()
            if error is not None:
                # Kept for good: the other thread must not send half a message between these words and the end.
                self._sending.acquire()
                raise _for_server(error)
        self._tell("done", concealed_frames=self._matcher.concealed_frames)
        # Packets that nobody needs may still come: if this ended with some unread, the server could lose these words.
        while True:
            self._channel.receive()

    def _note_end(self, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:
            self._ended.put(error)
        else:
            self._ended.put(None)

    def _decode(self) -> None:
        codec, encoded = self._task.codec, PIXEL_FORMATS[self._task.plan.output_pixel_format]
        reader = FrameReader(colours_of(codec), codec.width, codec.height, encoded.bits, alpha=encoded.alpha)
        started = time.thread_time()
        for batch in _batches(self._pictures(reader)):
            now = time.thread_time()
            self._tell("progress", stage="decode", seconds=now - started, frames=len(batch))
            frames = np.stack(batch)
            self._decoded.put(frames, frames.nbytes)
            started = time.thread_time()
        self._decoded.close()

    def _give(self, rank: Channel) -> None:
        with _to_rank():
            for frames in self._decoded:
                send_frames(rank, frames)
            rank.send("end")

    def _pictures(self, reader: FrameReader) -> Iterator[Frames]:
        decoder, matcher = Decoder(self._task.codec), self._matcher
        for packet in self._packets():
            for frame in decoder.frames(packet):
                if matcher.wants(frame.pts):
                    yield from matcher.feed(frame.pts, reader.picture(frame))
            if matcher.complete:
                return
        for frame in decoder.finish():
            if matcher.wants(frame.pts):
                yield from matcher.feed(frame.pts, reader.picture(frame))
        yield from matcher.finish()

    def _packets(self) -> Iterator[Packet]:
        while (message := self._channel.receive()).kind == "packet":
            yield packet_of(message.fields, message.payload)

    def _take(self, rank: Channel) -> None:
        while (message := _from_rank(rank)).kind == "frames":
            frames = frames_of(message)
            self._restored.put(frames, frames.nbytes)
        self._restored.close()

    def _encode(self) -> None:
        ready: list[tuple[Segment, bytes]] = []
        encoder = SpanEncoder(
            self._task, threads=self._order.encoder_threads, on_segment=lambda segment, data: ready.append((segment, data))
        )
        for pictures in self._restored:
            started = time.perf_counter()
            encoder.take(pictures)
            self._tell("progress", stage="encode", seconds=time.perf_counter() - started, frames=len(pictures))
            for segment, data in ready:
                self._tell("segment", data, first=segment.first, end=segment.end)
            ready.clear()
        if not encoder.complete:
            raise InternalError("the rank gave back fewer frames than it got")

    def _tell(self, kind: str, payload: Buffer = b"", **fields: object) -> None:
        with self._sending:
            self._channel.send(kind, payload, **fields)


def _batches(pictures: Iterator[Frames]) -> Iterator[list[Frames]]:
    batch: list[Frames] = []
    for picture in pictures:
        batch.append(picture)
        if len(batch) == MAX_BATCH_FRAMES or (len(batch) + 1) * picture.nbytes > MAX_BATCH_BYTES:
            yield batch
            batch = []
    if batch:
        yield batch


@contextlib.contextmanager
def _to_rank() -> Iterator[None]:
    try:
        yield
    except ChannelClosed as error:
        raise _RankLost from error


def _from_rank(rank: Channel) -> Message:
    with _to_rank():
        return rank.receive()


def _for_server(error: Exception) -> Exception:
    if isinstance(error, ServiceError | ChannelClosed | MemoryError | _RankLost):
        return error
    _log.error("decoding or encoding failed", exc_info=error)
    return InternalError("Decoding or encoding failed.")


if __name__ == "__main__":
    run_child(main)
