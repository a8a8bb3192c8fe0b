"""Read many damaged and hostile files with the real child processes: ``python -m tests.hostile --directory D``; prints JSON.

The gateway's child probes and indexes each file; the worker's child decodes and encodes damaged packets. What counts as wrong:
a child that is at work when its time is over, dies, or has an error of our own; a file that is opened, made or removed; and
a connection.
"""

import argparse
import collections
import dataclasses
import itertools
import json
import random
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from services.common.channel import Channel, ChannelClosed, Message
from services.common.child import Limits
from services.common.media import Packet, SpanTask
from services.gateway.container import archive, child, probe  # noqa: F401 - imported once, before children are forked
from services.gateway.source import ARCHIVE, info_fields, info_from_fields
from services.inference.frames import frames_of, send_frames
from services.inference.messages import VideoOrder, packet_fields
from services.inference.video import child as video_child
from tests.clips import make, pictures
from tests.hostile.crafted import crafted
from tests.hostile.forked import Outcome, Talk, run
from tests.hostile.mutate import MUTATORS, damaged
from tests.hostile.opens import Opens
from tests.unit.inference.clips import make_clip, read_clip, task_for

_MAX_PIXELS = 4_000_000
_LIMITS = Limits(memory_bytes=2 << 30, cpu_s=20)
_VIDEO_LIMITS = Limits(memory_bytes=4 << 30, cpu_s=20)
_WALL_S = 60.0
_OURS = frozenset({"InvalidVideo"})
_VIDEO_EACH = 5


def clips(directory: Path) -> dict[str, bytes]:
    """Small files of every kind that is taken, by their endings."""
    made = {
        "b-frames.mp4": make.video(directory / "a.mp4", audio="aac"),
        "fragments.mp4": make.video(directory / "b.mp4", muxer={"movflags": "frag_keyframe+empty_moov"}),
        "hevc.mov": make.video(directory / "c.mov", codec="libx265", options={"x265-params": "log-level=none"}),
        "subtitles.mkv": make.video(directory / "d.mkv", audio="aac", subtitles=True),
        "vp9.webm": make.video(directory / "e.webm", codec="libvpx-vp9"),
        "mpeg4.avi": make.video(directory / "f.avi", codec="mpeg4"),
        "broadcast.ts": make.video(directory / "g.ts", audio="aac"),
        "flash.flv": make.video(directory / "h.flv", codec="libx264"),
        "colours.gif": make.video(directory / "i.gif", codec="gif", pixel_format="rgb8"),
        "raw.h264": make.video(directory / "j.h264", container="h264"),
        "frames.zip": pictures.zipped(directory / "k.zip", [make.png(i) for i in range(3)]),
    }
    found = {name: path.read_bytes() for name, path in made.items()}
    for path in made.values():
        path.unlink()
    scene = pictures.scene()
    found |= {f"picture{suffix}": pictures.encoded(scene, suffix) for suffix in (".png", ".jpg", ".webp", ".tiff")}
    found["real.mp4"] = (Path(make.__file__).parent / "bunny_noisy.mp4").read_bytes()
    return found


def ask(kind: str, last: str, **fields: object) -> Talk:
    """Ask a child of the gateway for one thing, and hear it to the end."""

    def talk(channel: Channel) -> Message:
        channel.receive()
        channel.send(kind, **fields)
        while (message := channel.receive()).kind not in (last, "error"):
            pass
        return message

    return talk


def looked_at(path: Path) -> Iterator[tuple[str, Outcome]]:
    """What comes of a probe and, where that succeeds, of an index."""
    probed = run(child.main, ask("probe", "info", path=str(path), max_pixels=_MAX_PIXELS), limits=_LIMITS, wall_s=_WALL_S)
    yield "probe", probed
    if probed.answer is not None and probed.answer.kind == "info":
        info = info_from_fields(probed.answer.fields)
        operation = "archive_index" if info.container == ARCHIVE else "index"
        talk = ask(operation, "index", path=str(path), info=info_fields(info))
        yield "index", run(child.main, talk, limits=_LIMITS, wall_s=_WALL_S)


class Report:
    """What was found."""

    def __init__(self) -> None:
        self.outcomes: collections.Counter[str] = collections.Counter()
        self.wrong: list[str] = []
        self.slowest: tuple[float, str] = (0.0, "")

    def note(self, name: str, step: str, outcome: Outcome) -> None:
        """One child more."""
        words = outcome.words
        self.outcomes[f"{step} {words.split(' after')[0]}"] += 1
        self.slowest = max(self.slowest, (round(outcome.seconds, 2), f"{step} of {name}"))
        good = words == "ok" or (outcome.answer is not None and outcome.answer.fields.get("reason") in _OURS)
        if not good:
            said = outcome.answer.fields.get("message", "") if outcome.answer is not None else ""
            self.wrong.append(f"{step} of {name}: {words} {said}".strip())


def read_files(directory: Path, seed: int, count: int, report: Report) -> int:
    """Look at ``count`` damaged files, and at all crafted ones; how many there were."""
    canary, target, files = make.video(directory / "canary.mp4"), directory / "source", 0
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/canary.mp4"
        good = clips(directory)
        named = itertools.chain(crafted(good["b-frames.mp4"], canary, url), itertools.islice(damaged(good, seed), count))
        opens = Opens(canary)
        for name, data in named:
            target.write_bytes(data)
            before = sorted(directory.iterdir())
            opens.seen()
            for step, outcome in looked_at(target):
                report.note(name, step, outcome)
            if opens.seen():
                report.wrong.append(f"{name}: opened another file")
            if sorted(directory.iterdir()) != before:
                report.wrong.append(f"{name}: changed the folder")
            files += 1
        try:
            listener.accept()
            report.wrong.append("somebody connected to the URL")
        except BlockingIOError:
            pass
    target.unlink()
    return files


def damaged_packets(packets: tuple[Packet, ...], dice: random.Random) -> list[Packet]:
    """Some are damaged, missing, out of order, or come twice."""
    found: list[Packet] = []
    for packet in packets:
        data, other = bytearray(packet.data), dice.choice(packets).data
        if dice.random() < 0.3:
            data = dice.choice(MUTATORS)(dice, data, other)
        changed = dataclasses.replace(packet, data=bytes(data) or b"\0")
        found += [changed] * dice.choice((1, 1, 1, 1, 1, 1, 1, 0, 2))
    if dice.random() < 0.2:
        dice.shuffle(found)
    return found


def restore(task: SpanTask, packets: list[Packet], path: Path) -> Talk:
    """Be server and rank of a child of the worker, to its end."""

    def rank() -> None:
        with socket.socket(socket.AF_UNIX) as end:
            try:
                end.connect(str(path))
                channel = Channel(end)
                while (message := channel.receive()).kind == "frames":
                    send_frames(channel, frames_of(message))
                channel.send("end")
            except (ChannelClosed, OSError):
                return

    def feed(channel: Channel) -> None:
        try:
            for packet in packets:
                channel.send("packet", packet.data, **packet_fields(packet))
            channel.send("end")
        except (ChannelClosed, OSError):
            return

    def talk(channel: Channel) -> Message:
        channel.send("span", **VideoOrder(task=task, path=str(path), encoder_threads=1).fields())
        if (message := channel.receive()).kind == "error":
            return message
        helpers = [threading.Thread(target=rank), threading.Thread(target=feed, args=(channel,))]
        for helper in helpers:
            helper.start()
        try:
            while (message := channel.receive()).kind not in ("done", "error", "lost"):
                pass
            return message
        finally:
            channel.close()
            for helper in helpers:
                helper.join()

    return talk


def read_packets(directory: Path, seed: int, count: int, report: Report) -> None:
    """Restore ``count`` spans of damaged packets."""
    dice = random.Random(seed)
    sources = [read_clip(make_clip(frames=12)), read_clip(make_clip(frames=12, codec="mpeg4"))]
    for number in range(count):
        clip = sources[number % len(sources)]
        codec = clip.codec
        if dice.random() < 0.2 and codec.extradata:
            extradata = dice.choice(MUTATORS)(dice, bytearray(codec.extradata), codec.extradata)
            codec = dataclasses.replace(codec, extradata=bytes(extradata))
        task, path = dataclasses.replace(task_for(clip), codec=codec), directory / f"span-{number}"
        talk = restore(task, damaged_packets(clip.packets, dice), path)
        outcome = run(video_child.main, talk, limits=_VIDEO_LIMITS, wall_s=_WALL_S)
        report.note(f"packets {number}", "restore", outcome)
        path.unlink(missing_ok=True)


def main() -> None:
    """Do it, and print what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--directory", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=1000)
    arguments = parser.parse_args()
    report, started = Report(), time.monotonic()
    files = read_files(arguments.directory, arguments.seed, arguments.count, report)
    spans = arguments.count // _VIDEO_EACH
    read_packets(arguments.directory, arguments.seed, spans, report)
    found = {
        "files": files, "spans": spans, "wrong": report.wrong, "outcomes": dict(report.outcomes), "slowest": report.slowest,
        "seconds": round(time.monotonic() - started), "left": sorted(p.name for p in arguments.directory.iterdir()),
    }  # fmt: skip
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
