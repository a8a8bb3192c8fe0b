"""In the place of the process that decodes and encodes, without PyAV: ``python -m bench.raw_video``, started by the server.

Frames are noise that depends on the span alone; what is restored goes into a hash, which is all that a segment holds.
"""

import contextlib
import hashlib
import socket
import threading

import numpy as np

from services.common.channel import Channel, ChannelClosed
from services.common.child import run_child
from services.inference.frames import MAX_BATCH_FRAMES, frames_of, send_frames
from services.inference.messages import VideoOrder, video_order


def main(channel: Channel) -> None:
    """Answer one message, "facts" or "span", and end."""
    message = channel.receive()
    if message.kind == "facts":
        channel.send("facts", facts={"raw": "1"})
        return
    order = video_order(message.fields)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(order.path)
        listener.listen(1)
        channel.send("listening")
        ranks = Channel(listener.accept()[0])
    threading.Thread(target=_feed, args=(ranks, order), daemon=True).start()
    try:
        digest = _hash_of(channel, ranks)
    except ChannelClosed:
        channel.send("lost")
        return
    channel.send("segment", digest, first=order.task.segments[0].first, end=order.task.segments[-1].end)
    channel.send("done", concealed_frames=0)


def _feed(ranks: Channel, order: VideoOrder) -> None:
    task = order.task
    random = np.random.default_rng(task.plan.seed)
    shape = (task.codec.height, task.codec.width, 3)
    # Whoever reads the other direction sees that the ranks are gone, too.
    with contextlib.suppress(ChannelClosed):
        for start in range(0, len(task.frame_pts), MAX_BATCH_FRAMES):
            count = min(MAX_BATCH_FRAMES, len(task.frame_pts) - start)
            send_frames(ranks, random.integers(0, 256, (count, *shape), dtype=np.uint8))
        ranks.send("end")


def _hash_of(server: Channel, ranks: Channel) -> bytes:
    digest = hashlib.sha256()
    while (message := ranks.receive()).kind == "frames":
        digest.update(message.payload)
        server.send("progress", stage="encode", seconds=0.0, frames=len(frames_of(message)))
    return digest.digest()


if __name__ == "__main__":
    run_child(main)
