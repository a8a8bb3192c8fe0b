"""A rank without a model: gives frames back as they came. It does what files in its model directory say.

A file's name is a wish to all ranks, or with "-1" behind it to rank 1 alone.

faulty      its device fails a check
broken      it can't load
hold        leaders stand still in a batch span while the file is there; the file held says that one does
deaf        and don't hear that it is cancelled
die         it dies in the middle of a span
break       and its others say that they miss it, or are the first to say so
no-memory   spans end with an error
other       its facts differ from those of other ranks
late        it is not ready while the file is there
"""

import contextlib
import os
import signal
import time
from dataclasses import asdict
from pathlib import Path

from services.common.channel import Channel
from services.common.child import error_fields, handed_sockets, run_child
from services.common.errors import GpuOutOfMemory, JobCancelled, ModelBroken, WorkerBroken
from services.inference.lockstep import Desk, FramesLost, Part, Peer, leading
from services.inference.messages import LEADER, DeviceCheck, LoadOrder, RankChecked, RankReady, RestoreOrder

MODULE = "tests.unit.inference.quick_rank"


class QuickRank:
    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.order = LoadOrder(**channel.receive().fields)
        self.directory = Path(self.order.directory)
        self.leads = self.order.place == LEADER
        self.desk = Desk(channel)
        self.links = [Channel(end) for end in handed_sockets()]

    def wished(self, name: str) -> bool:
        return any((self.directory / wish).exists() for wish in (name, f"{name}-{self.order.index}"))

    def run(self) -> None:
        faulty = self.wished("faulty")
        checks = (
            DeviceCheck(name="conv3d", passed=not faulty, detail="it computes wrongly" if faulty else "quick"),
            DeviceCheck(name="peers", passed=False, required=False, detail="far"),
        )
        self.channel.send("checked", **asdict(RankChecked(device={"device": "quick"}, checks=checks)))
        if faulty:
            raise WorkerBroken("The device failed 1 of its checks. conv3d: it computes wrongly.")
        if self.wished("broken"):
            raise ModelBroken("dit.safetensors is missing")
        while self.wished("late"):
            time.sleep(0.01)
        facts = {"device": "quick", "rank": str(self.order.index) if self.wished("other") else ""}
        ready = RankReady(
            facts=facts, device="quick", dtype="float32", weight_format="float32", parameters=7, sha256={"a": "1"},
            memory_bytes=1 << 30, gpu_memory_bytes=5, passes="stacked", available_bytes=1 << 36,
            megapixels_per_second=0.5,
        )  # fmt: skip
        self.channel.send("ready", **asdict(ready))
        while True:
            self.restore(self.desk.next_order() if self.leads else self.heard())

    def heard(self) -> RestoreOrder:
        while (message := self.links[0].receive()).kind != "restore":
            pass
        return RestoreOrder(**message.fields)

    def part(self, order: RestoreOrder) -> contextlib.AbstractContextManager[Part]:
        if self.leads:
            return leading(self.desk, self.links, order, self.restore)
        return contextlib.nullcontext(Peer(self.links[0], order.number, self.restore))

    def restore(self, order: RestoreOrder) -> None:
        number = order.number
        try:
            with self.part(order) as entered:
                self.exchange(entered, order)
            self.channel.send("done", number=number, peak_memory_bytes=11 + self.order.index)
        except FramesLost:
            self.channel.send("lost", number=number)
        except JobCancelled:
            self.channel.send("cancelled", number=number)
        except GpuOutOfMemory as error:
            if self.links:
                raise
            self.channel.send("failed", number=number, **error_fields(error))

    def exchange(self, part: Part, order: RestoreOrder) -> None:
        for pictures in part.frames():
            if self.wished("no-memory"):
                raise GpuOutOfMemory("it doesn't fit")
            if self.wished("die"):
                os.kill(os.getpid(), signal.SIGKILL)
            if self.wished("break"):
                raise WorkerBroken("the others are gone")
            if self.leads and not order.preview:
                self.hold()
            part.pause()
            self.channel.send(
                "progress", number=order.number, stage="dit", seconds=0.25, frames=len(pictures), gpu_memory_bytes=6
            )
            part.give(pictures)
        part.end()

    def hold(self) -> None:
        while self.wished("hold") and (self.wished("deaf") or not self.channel.waiting()):
            (self.directory / "held").touch()
            time.sleep(0.01)


def main(channel: Channel) -> None:
    QuickRank(channel).run()


if __name__ == "__main__":
    run_child(main)
