"""A rank without a model: gives frames back as they came. It does what files in its model directory say.

broken      it can't load
hold        spans stand still while the file is there; the file held says that one does
deaf        and don't hear that they are cancelled
die         it dies in the middle of a span
no-memory   spans end with an error
other       its facts differ from those of other ranks
"""

import os
import signal
import socket
import time
from dataclasses import asdict
from pathlib import Path

from services.common.channel import Channel, ChannelClosed
from services.common.child import error_fields, run_child
from services.common.errors import GpuOutOfMemory, JobCancelled, ModelBroken
from services.inference.frames import frames_of, send_frames
from services.inference.messages import LoadOrder, RankReady, RestoreOrder

MODULE = "tests.unit.inference.quick_rank"


def main(channel: Channel) -> None:
    order = LoadOrder(**channel.receive().fields)
    wishes = Path(order.directory)
    if (wishes / "broken").exists():
        raise ModelBroken("dit.safetensors is missing")
    facts = {"device": "quick", "rank": str(order.index) if (wishes / "other").exists() else ""}
    ready = RankReady(
        facts=facts, device="quick", dtype="float32", weight_format="float32", parameters=7, sha256={"a": "1"},
        memory_bytes=1 << 30, gpu_memory_bytes=5,
    )  # fmt: skip
    channel.send("ready", **asdict(ready))
    while True:
        message = channel.receive()
        if message.kind == "restore":
            restore(channel, wishes, RestoreOrder(**message.fields))


def restore(channel: Channel, wishes: Path, order: RestoreOrder) -> None:
    with socket.socket(socket.AF_UNIX) as end:
        try:
            end.connect(order.path)
            exchange(channel, Channel(end), wishes, order.number)
            channel.send("done", number=order.number, peak_memory_bytes=11)
        except (ChannelClosed, OSError):
            channel.send("lost", number=order.number)
        except JobCancelled:
            channel.send("cancelled", number=order.number)
        except GpuOutOfMemory as error:
            channel.send("failed", number=order.number, **error_fields(error))


def exchange(channel: Channel, frames: Channel, wishes: Path, number: int) -> None:
    while (message := frames.receive()).kind == "frames":
        if (wishes / "no-memory").exists():
            raise GpuOutOfMemory("it doesn't fit")
        if (wishes / "die").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        hold(channel, wishes, number)
        pictures = frames_of(message)
        channel.send("progress", number=number, stage="dit", seconds=0.25, frames=len(pictures), gpu_memory_bytes=6)
        send_frames(frames, pictures)
    frames.send("end")


def hold(channel: Channel, wishes: Path, number: int) -> None:
    while (wishes / "hold").exists():
        if not (wishes / "deaf").exists() and channel.waiting() and channel.receive().fields["number"] == number:
            raise JobCancelled("cancelled")
        (wishes / "held").touch()
        time.sleep(0.01)


if __name__ == "__main__":
    run_child(main)
