"""``python -m bench.gpu``: check, then time the model on this GPU, plain path and fast path in one run.

Weights are random: time doesn't depend on them. Stages are timed by CUDA events over whole clips (one warm-up, then the median);
``end to end`` is the wall time of the pipeline from 8-bit frames in memory to 8-bit frames in memory.
"""

import argparse
import gc
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from bench.table import print_table
from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.kernels import choose_kernels
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.untrained import untrained_model
from services.inference.gpu.model.vae import Vae, VaeState
from services.inference.gpu.model.weights import Model
from services.inference.gpu.pipeline import RestoreSettings, SpanRestorer

T = TypeVar("T")

DEVICE = torch.device("cuda")
DTYPE = torch.bfloat16

FLOOR_MS = {(1280, 720, 5): 49.8, (1280, 720, 21): 45.6, (1280, 720, 121): 45.2, (1920, 1080, 21): 102.7}
"""Arithmetic of the 3B model as published, at 790 TFLOP/s, a frame. Merged upsamplers need 5.9 ms less at 720p."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One clip to time."""

    width: int
    """Of the output, pixels."""

    height: int
    """Of the output, pixels."""

    frames: int
    """Of the clip: 4n + 1."""


CASES = (
    Case(width=1280, height=720, frames=5),
    Case(width=1280, height=720, frames=21),
    Case(width=1280, height=720, frames=121),
    Case(width=1920, height=1080, frames=21),
)


def main() -> None:
    """Check, time, profile."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu", description=__doc__)
    parser.add_argument("--model", default="seedvr2-3b", choices=sorted(SPECS))
    parser.add_argument("--cases", default="", help="numbers of the cases to time, such as 0,1; all by default")
    parser.add_argument("--no-check", action="store_true", help="time without checking first")
    parser.add_argument("--no-plain", action="store_true", help="leave the plain path out")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench.gpu needs a CUDA GPU")
    if not chosen.no_check and subprocess.run([sys.executable, "-m", "pytest", "-q", *_PYTEST, "tests/gpu"]).returncode:
        sys.exit("the checks failed; nothing was timed")
    cases = [CASES[int(index)] for index in chosen.cases.split(",")] if chosen.cases else list(CASES)
    fast = untrained_model(SPECS[chosen.model], choose_kernels(DEVICE, DTYPE), DEVICE, DTYPE)
    print_machine(fast)
    paths = {"fast": fast} if chosen.no_plain else {"plain": plain_twin(fast), "fast": fast}
    rows = [row for case in cases for name, model in paths.items() for row in [time_case(name, model, case)]]
    print_table("Stages", _HEAD, rows)
    print_profile(fast, cases[0])


# The project's own pytest settings name plugins that a GPU machine needs not have.
_PYTEST = ("-c", "/dev/null", "--rootdir", ".", "-p", "no:cacheprovider", "-W", "ignore")

_HEAD = (
    "path", "output", "frames", "encode ms", "DiT ms", "decode ms", "sum ms", "ms/frame", "Mpx/s",
    "floor ms/frame", "sum / floor", "end to end ms/frame", "peak GB", "reserved GB",
)  # fmt: skip


def plain_twin(model: Model) -> Model:
    """The same parameters, computed with by the plain path."""
    kernels = choose_kernels(DEVICE, DTYPE, fused=False)
    with torch.device("meta"):
        dit, vae = Dit(model.spec.dit, kernels), Vae(model.spec.vae, kernels)
    dit.load_state_dict(model.dit.state_dict(), assign=True)
    vae.load_state_dict(model.vae.state_dict(), assign=True)
    return replace(model, dit=dit.requires_grad_(False), vae=vae.requires_grad_(False), kernels=kernels.report)


def print_machine(model: Model) -> None:
    """Device, versions and kernels."""
    cudnn = torch.backends.cudnn.version()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, CUDA {torch.version.cuda}, cuDNN {cudnn}")
    print(", ".join(f"{purpose}: {kernel}" for purpose, kernel in model.kernels.items()), flush=True)


def time_case(name: str, model: Model, case: Case) -> tuple[str, ...]:
    """One row of the table."""
    gc.collect()
    torch.cuda.empty_cache()
    clip = Clip(model, case)
    clip.run()
    times = [clip.run() for _ in range(1 if case.frames > 100 else 3)]
    encode, dit, decode = (median(run[stage] for run in times) for stage in range(3))
    del clip
    wall, peak, reserved = end_to_end(model, case)
    total, pixels = encode + dit + decode, case.width * case.height * case.frames
    floor = FLOOR_MS.get((case.width, case.height, case.frames)) if model.spec.name == "seedvr2-3b" else None
    each = total / case.frames
    row = (
        name, f"{case.width}x{case.height}", str(case.frames), f"{encode:.1f}", f"{dit:.1f}", f"{decode:.1f}", f"{total:.1f}",
        f"{each:.1f}", f"{pixels / total / 1e3:.2f}", str(floor or ""), f"{each / floor:.2f}" if floor else "",
        f"{wall:.1f}", f"{peak:.1f}", f"{reserved:.1f}",
    )  # fmt: skip
    print("  ".join(row), flush=True)
    return row


class Clip:
    """Random input of a case and the three stages over it, sliced as the pipeline slices."""

    def __init__(self, model: Model, case: Case) -> None:
        multiple, factor = model.spec.size_multiple, model.spec.vae.temporal_factor
        height, width = (-(-side // multiple) * multiple for side in (case.height, case.width))
        self._model = model
        self._frames = torch.rand((case.frames, 3, height, width), device=DEVICE).to(DTYPE) * 2 - 1
        self._slices = [1, *[factor * model.spec.slice_latents] * ((case.frames - 1) // (factor * model.spec.slice_latents))]

    @torch.inference_mode()
    def run(self) -> tuple[float, float, float]:
        """Milliseconds of encode, transformer, decode."""
        encode, latents = timed(self._encode)
        dit, restored = timed(
            lambda: [velocity(self._model, window) for window in latents.split(self._model.spec.window_latents)]
        )
        decode, _ = timed(lambda: self._decode(torch.cat(restored)))
        return encode, dit, decode

    def _encode(self) -> Tensor:
        state = VaeState()
        return torch.cat([self._model.vae.encode(part, state) for part in self._frames.split(self._slices)])

    def _decode(self, latents: Tensor) -> None:
        state = VaeState()
        for part in latents.split(self._model.spec.slice_latents):
            self._model.vae.decode(part, state)


def velocity(model: Model, latents: Tensor) -> Tensor:
    """The transformer over one window of latents."""
    inputs = torch.cat([torch.randn_like(latents), latents, torch.ones_like(latents[..., :1])], dim=-1).to(DTYPE)
    result: Tensor = model.dit(inputs, model.text, torch.tensor(1000.0, device=DEVICE))
    return result.float()


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Milliseconds between two events around the work."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    result = work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end), result


def end_to_end(model: Model, case: Case) -> tuple[float, float, float]:
    """Wall milliseconds a frame from half-size 8-bit frames to restored ones, and peak GB allocated and reserved."""
    rng = np.random.default_rng(0)
    source = rng.integers(0, 256, (8, case.height // 2, case.width // 2, 3), dtype=np.uint8)
    settings = RestoreSettings(width=case.width, height=case.height, seed=0, first_frame=0)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    seconds = []
    for _ in range(1 if case.frames > 100 else 2):
        restorer = SpanRestorer(model, settings, on_stage=lambda *_: None, checkpoint=lambda: None)
        start, count = time.perf_counter(), 0
        for first in range(0, case.frames, len(source)):
            count += sum(len(part) for part in restorer.push(source[: case.frames - first]))
        count += sum(len(part) for part in restorer.finish())
        seconds.append(time.perf_counter() - start)
        if count != case.frames:
            sys.exit(f"{count} frames came out, not {case.frames}")
        del restorer
    return min(seconds) * 1e3 / case.frames, torch.cuda.max_memory_allocated() / 1e9, torch.cuda.max_memory_reserved() / 1e9


def print_profile(model: Model, case: Case) -> None:
    """The kernels of one later slice of the decoder, the slowest stage."""
    from torch.profiler import ProfilerActivity, profile

    factor = model.spec.vae.spatial_factor
    shape = (model.spec.slice_latents, case.height // factor, case.width // factor, model.spec.dit.latent_channels)
    latents, state = torch.randn(shape, device=DEVICE), VaeState()
    with torch.inference_mode():
        for _ in range(3):
            model.vae.decode(latents, state)
        torch.cuda.synchronize()
        with profile(activities=[ProfilerActivity.CUDA]) as record:
            model.vae.decode(latents, state)
            torch.cuda.synchronize()
    kernels = sorted(record.key_averages(), key=lambda kernel: -kernel.self_device_time_total)
    total = sum(kernel.self_device_time_total for kernel in kernels)
    rows = [(kernel.key[:90], kernel.count, kernel.self_device_time_total / 1e3) for kernel in kernels[:14]]
    cells = [(name, str(calls), f"{spent:.2f}", f"{spent * 1e3 / total:.0%}") for name, calls, spent in rows]
    title = f"Kernels of a decoder slice, {case.width}x{case.height}, {total / 1e3:.1f} ms"
    print_table(title, ("kernel", "calls", "ms", "share"), cells)


if __name__ == "__main__":
    main()
