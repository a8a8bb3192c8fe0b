"""``python -m bench.gpu_failures``: what becomes of a span and of its group when one rank is killed, hangs or lacks memory.

Real rank processes with the embedded model share spans of noise, over NCCL on GPUs or over gloo on a CPU. After each failure the
next span must give the hash of the first one, and the GPUs must hold no more than before. Needs neither PyAV nor gRPC.
"""

import argparse
import asyncio
import contextlib
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import psutil
from prometheus_client import CollectorRegistry

from bench.table import print_table
from services.common.errors import ServiceError
from services.common.media import CodecParameters, Packet, SpanTask
from services.common.metrics import InferenceMetrics
from services.common.plan import RestorePlan, Segment
from services.inference.admission import NOISE
from services.inference.gpu.memory import Setting
from services.inference.groups import Group, Groups, choose_layout, load_orders
from services.inference.launch import RANK_MODULE
from services.inference.machines import Machines
from services.inference.messages import SegmentReady, SpanEvent, SpanProgress
from services.inference.models import find_model
from services.inference.ranks import RankLimits
from services.inference.restoring import SpanWork, rank_order
from services.inference.video.process import VideoLimits, VideoProcesses

_STOP_S, _READY_S = 2.0, 120.0
# Kernels may have to be compiled in the middle of a span.
_STALL_S = 120.0
_HANG_S = {"cpu": 3.0, "cuda": 10.0}
_LEFT_MIB = 64
# What a driver keeps for a process differs a little from start to start.
_SLACK_MIB = 64
_HEAD = (
    "failure", "s to the error", "the error", "s to a fresh group", "next span", "old processes", "GPU MiB", "right",
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """Noise to restore."""

    width: int
    """Pixels."""

    height: int
    """Pixels."""

    frames: int
    """4n + 1."""

    stall_s: float = _STALL_S
    """Time without progress after which it is given up."""


_SPANS = {"cpu": Span(width=96, height=64, frames=61), "cuda": Span(width=640, height=384, frames=241)}
_LARGER = 2


class Bench:
    """A worker of one group, without its server."""

    def __init__(self, directory: Path, *, device: str, ranks: int, model: str, model_directory: str) -> None:
        self.span = _SPANS[device]
        self.device = device
        self.ended = 0.0
        """When the last span did, one way or the other."""
        self._metrics = InferenceMetrics(CollectorRegistry())
        files = find_model(model, model_directory)
        layout = choose_layout(device=device, ranks=ranks, sequence=0)
        orders = load_orders(
            model=files.name, directory=files.directory, sha256=files.sha256, device=device, dtype="auto", layout=layout,
            threads=1,
        )  # fmt: skip
        limits = RankLimits(start_s=_READY_S, stop_s=_STOP_S)
        self.groups = Groups(orders, limits, self._metrics, Machines(directory))
        self._videos = VideoProcesses(
            directory, VideoLimits(memory_bytes=8 << 30, cpu_s=600, encoder_threads=1), "bench.raw_video"
        )  # fmt: skip
        self._changed = asyncio.Event()
        self.groups.on_change(self._changed.set)

    @property
    def group(self) -> Group:
        """The one there is."""
        return self.groups.all[0]

    async def ready(self) -> None:
        """Wait for the group."""
        try:
            async with asyncio.timeout(_READY_S):
                while self.groups.ready is None:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            sys.exit(f"the group is not ready after {_READY_S:g} s: {self.groups.detail}")

    async def restore(self, span: Span, on_begun: Callable[[], None] = lambda: None) -> bytes:
        """A span, seen through: the hash of its frames. ``on_begun`` is called in the middle of it. Raises ServiceError."""
        task, found, begun = _task(span), b"", False

        async def take(event: SpanEvent) -> None:
            nonlocal found, begun
            if isinstance(event, SegmentReady):
                found = event.data
            elif isinstance(event, SpanProgress) and event.stage == "dit" and not begun:
                begun = True
                on_begun()

        async with self._videos.open(task) as video:
            order = await self.group.begin(rank_order(task, self.group.next_number(), video.path, Setting(slice_latents=1)))
            try:
                await SpanWork(task, video=video, order=order, emit=take, metrics=self._metrics).run(_no_packets())
            finally:
                self.ended = time.monotonic()
                video.kill()
                await self.group.stop(order)
        return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What became of a failure."""

    name: str
    """Of the failure."""

    told_s: float
    """From the failure to the error; where it comes by itself, from the span's start."""

    error: str
    """Its words; empty: there was none."""

    back_s: float
    """From then on until a fresh group was ready."""

    same: bool
    """Whether the next span came out like the first one."""

    left: int
    """Old processes that were still there."""

    before_mib: list[int]
    """Used on each GPU."""

    after_mib: list[int]
    """The same after the next span."""

    @property
    def is_right(self) -> bool:
        """Whether all is as it must be."""
        grown = any(after - before > _SLACK_MIB for before, after in zip(self.before_mib, self.after_mib, strict=True))
        return bool(self.error) and self.same and not self.left and not grown

    def cells(self) -> tuple[str, ...]:
        """A row for :data:`_HEAD`."""
        return (
            self.name, f"{self.told_s:.1f}", self.error or "none", f"{self.back_s:.1f}", "the same" if self.same else "another",
            str(self.left), f"{self.before_mib} → {self.after_mib}", "yes" if self.is_right else "NO",
        )  # fmt: skip


Failure = Callable[[Bench], contextlib.AbstractAsyncContextManager[tuple[Span, Callable[[], None]]]]
"""Prepares a failure: gives the span in which it is to happen and what makes it happen in the middle of that."""


def _kill(rank: int) -> Failure:
    @contextlib.asynccontextmanager
    async def prepare(bench: Bench) -> AsyncIterator[tuple[Span, Callable[[], None]]]:
        yield bench.span, lambda: rank_processes()[rank].kill()

    return prepare


@contextlib.asynccontextmanager
async def _no_memory(bench: Bench) -> AsyncIterator[tuple[Span, Callable[[], None]]]:
    """Rank 1 can't have more memory than it has, and gets a span that needs more."""
    larger = replace(bench.span, width=_LARGER * bench.span.width, height=_LARGER * bench.span.height)
    if bench.device == "cpu":
        process = rank_processes()[1]
        resource.prlimit(process.pid, resource.RLIMIT_AS, (process.memory_info().vms, resource.RLIM_INFINITY))
        yield larger, lambda: None
        return
    hog = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "bench.hog", "1", str(_LEFT_MIB), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        if hog.stdout is None or await hog.stdout.readline() != b"full\n":
            sys.exit("the memory of GPU 1 could not be filled")
        yield larger, lambda: None
    finally:
        hog.kill()
        await hog.wait()


@contextlib.asynccontextmanager
async def _hang(bench: Bench) -> AsyncIterator[tuple[Span, Callable[[], None]]]:
    yield replace(bench.span, stall_s=_HANG_S[bench.device]), lambda: rank_processes()[1].send_signal(signal.SIGSTOP)


CASES: dict[str, Failure] = {
    "kill -9 of rank 1": _kill(1),
    "kill -9 of rank 0, which leads": _kill(0),
    "rank 1 out of memory": _no_memory,
    "rank 1 hangs": _hang,
}


def main() -> None:
    """Run all cases; the exit status says whether each went as it must."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_failures", description=__doc__)
    parser.add_argument("--backend", choices=("nccl", "gloo"), default="nccl", help="gloo: on the CPU")
    parser.add_argument("--ranks", type=int, default=2, help="that share a span")
    parser.add_argument("--model", default="nano", help="an embedded model, or one in --model-directory")
    parser.add_argument("--model-directory", default="", help="with a directory of weights per model")
    chosen = parser.parse_args()
    if chosen.ranks < 2:
        parser.error("failures of a group need at least 2 ranks")
    with tempfile.TemporaryDirectory(prefix="seedvr2-") as directory:
        bench = Bench(
            Path(directory), device="cpu" if chosen.backend == "gloo" else "cuda", ranks=chosen.ranks, model=chosen.model,
            model_directory=chosen.model_directory,
        )  # fmt: skip
        outcomes = asyncio.run(run(bench))
    span = bench.span
    title = f"{chosen.ranks} ranks over {chosen.backend}, a span of {span.frames} frames of {span.width}x{span.height}"
    print_table(title, _HEAD, [outcome.cells() for outcome in outcomes])
    sys.exit(not all(outcome.is_right for outcome in outcomes))


async def run(bench: Bench) -> list[Outcome]:
    """Of each case."""
    bench.groups.start()
    try:
        started = time.monotonic()
        await bench.ready()
        print(f"group ready after {time.monotonic() - started:.1f} s", flush=True)
        started, expected = time.monotonic(), await bench.restore(bench.span)
        print(
            f"undisturbed span of {bench.span.frames} frames in {time.monotonic() - started:.1f} s, GPU MiB {gpu_mib()}",
            flush=True,
        )
        outcomes = []
        for name, failure in CASES.items():
            outcomes.append(await case(bench, name, failure, expected))
            print(" | ".join(outcomes[-1].cells()), flush=True)
        return outcomes
    finally:
        await bench.groups.close()


async def case(bench: Bench, name: str, failure: Failure, expected: bytes) -> Outcome:
    """Let it happen, and look at what is left."""
    before, processes = gpu_mib(), rank_processes()
    struck = time.monotonic()

    def strike() -> None:
        nonlocal struck
        struck = time.monotonic()
        act()

    words = ""
    async with failure(bench) as (span, act):
        try:
            await bench.restore(span, strike)
        except ServiceError as error:
            words = f"{type(error).__name__}: {error}"
        told = bench.ended
    await bench.ready()
    back_s = time.monotonic() - told
    return Outcome(
        name=name, told_s=told - struck, error=words, back_s=back_s, same=await bench.restore(bench.span) == expected,
        left=sum(process.is_running() for process in processes), before_mib=before, after_mib=gpu_mib(),
    )  # fmt: skip


def rank_processes() -> list[psutil.Process]:
    """In the order of the ranks."""
    found = [p for p in psutil.Process().children() if RANK_MODULE in p.cmdline()]
    return sorted(found, key=lambda process: process.environ()["SEEDVR2_SERVICE"])


def gpu_mib() -> list[int]:
    """Used on each GPU; empty where there is none."""
    command = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits"]
    try:
        return [int(line) for line in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()]
    except FileNotFoundError:
        return []


def _task(span: Span) -> SpanTask:
    plan = RestorePlan(
        model="", model_hash="", fingerprint="", dtype="", weight_format="", width=span.width, height=span.height, seed=1,
        noise=NOISE, encoder_options=(), output_pixel_format="yuv420p",
    )  # fmt: skip
    codec = CodecParameters(codec="", extradata=b"", width=span.width, height=span.height, pixel_format="")
    return SpanTask(
        job_id="bench", span=0, request_id="", codec=codec, time_base=Fraction(1, 25), first_index=0,
        frame_pts=tuple(range(span.frames)), last_duration=1, by_order=False, context_frames=0,
        segments=(Segment(first=0, end=span.frames),), stored=frozenset(), plan=plan, stall_timeout_s=span.stall_s,
    )  # fmt: skip


async def _no_packets() -> AsyncIterator[Packet]:
    for packet in ():
        yield packet


if __name__ == "__main__":
    main()
