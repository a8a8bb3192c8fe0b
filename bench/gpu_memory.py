"""``python -m bench.gpu_memory``: verify this GPU, then compare predicted and measured peak memory for the released sizes.

Weights are random: memory doesn't depend on them. Each row is one span through the pipeline, from half-size 8-bit frames in
memory to restored ones. ``predicted`` and ``measured`` are bytes in tensors; ``needed`` is what a worker asks to be free before
it begins, ``reserved`` what PyTorch held in the end.
"""

import argparse
import gc
import sys
import time

import numpy as np
import torch

from bench.table import print_table
from services.common.errors import GpuOutOfMemory
from services.inference.gpu.memory import Machine, Setting, Workload, least_bytes, predict, settings_of
from services.inference.gpu.model.kernels import choose_kernels
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.untrained import untrained_model
from services.inference.gpu.model.weights import Model
from services.inference.gpu.pipeline import RestoreSettings, SpanRestorer
from services.inference.gpu.verify import verify

DEVICE, DTYPE = torch.device("cuda", 0), torch.bfloat16
SIZES = ((1280, 720), (1920, 1080))
_HEAD = ("model", "kernels", "output", "slice", "offload", "park", "predicted GB", "measured GB", "measured / predicted",
         "needed GB", "reserved GB", "ms/frame")  # fmt: skip


def main() -> None:
    """Verify, restore, compare."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_memory", description=__doc__)
    parser.add_argument("--models", default="seedvr2-3b,seedvr2-7b", help="names, separated by commas")
    parser.add_argument("--frames", type=int, default=21, help="of each span: 4n + 1")
    parser.add_argument("--plain", action="store_true", help="without fused kernels")
    chosen = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("bench.gpu_memory needs a CUDA GPU")
    names = chosen.models.split(",")
    print_verification(names[0])
    rows = [row for name in names for row in measure_model(name, frames=chosen.frames, plain=chosen.plain)]
    print_table("Memory, predicted and measured", _HEAD, rows)


def print_verification(name: str) -> None:
    """What a rank would find out at its start, and how long it takes."""
    started = time.perf_counter()
    found = verify(DEVICE, DTYPE, least_bytes(SPECS[name], Machine(dtype="bfloat16", passes="plain")))
    print(f"verified in {time.perf_counter() - started:.1f} s: {found.device}")
    for check in found.checks:
        print(f"  {'ok    ' if check.passed else 'FAILED'} {check.name}: {check.detail}", flush=True)


def measure_model(name: str, *, frames: int, plain: bool) -> list[tuple[str, ...]]:
    """A row for each size and setting."""
    kernels = choose_kernels(DEVICE, DTYPE, fused=False if plain else None)
    model = untrained_model(SPECS[name], kernels, DEVICE, DTYPE)
    machine = Machine(dtype="bfloat16", passes=kernels.report["passes"])  # type: ignore[arg-type]
    rows = []
    for width, height in SIZES:
        for setting in settings_of(model.spec, machine):
            rows.append(measure(model, machine, width, height, frames, setting))
            print("  ".join(rows[-1]), flush=True)
    model.dit.offload(wanted=False)
    return rows


def measure(model: Model, machine: Machine, width: int, height: int, frames: int, setting: Setting) -> tuple[str, ...]:
    """One row: a span with a setting, after one that warmed up."""
    latents = min(1 + frames // model.spec.vae.temporal_factor, model.spec.window_latents)
    workload = Workload(width=width, height=height, source_pixels=width * height // 4, window_latents=latents)
    predicted = predict(model.spec, machine, workload, setting)
    start = (model.spec.name, machine.passes, f"{width}x{height}", str(setting.slice_latents), *map(_yes, _waits(setting)))
    try:
        model.dit.offload(wanted=setting.offload)
        restore(model, width, height, frames, setting)
        gc.collect()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        seconds = restore(model, width, height, frames, setting)
    except GpuOutOfMemory:
        return (*start, _gb(predicted.allocated), "out of memory", "", _gb(predicted.needed), "", "")
    allocated, reserved = torch.cuda.max_memory_allocated(), torch.cuda.max_memory_reserved()
    return (
        *start, _gb(predicted.allocated), _gb(allocated), f"{allocated / predicted.allocated:.3f}", _gb(predicted.needed),
        _gb(reserved), f"{seconds * 1e3 / frames:.1f}",
    )  # fmt: skip


def restore(model: Model, width: int, height: int, frames: int, setting: Setting) -> float:
    """Seconds that a span takes."""
    source = np.random.default_rng(0).integers(0, 256, (frames, height // 2, width // 2, 3), dtype=np.uint8)
    settings = RestoreSettings(
        width=width, height=height, seed=0, first_frame=0, slice_latents=setting.slice_latents, park=setting.park
    )
    restorer = SpanRestorer(model, settings, on_stage=lambda *_: None, checkpoint=lambda: None)
    started = time.perf_counter()
    count = sum(len(part) for part in restorer.push(source)) + sum(len(part) for part in restorer.finish())
    if count != frames:
        sys.exit(f"{count} frames came out, not {frames}")
    return time.perf_counter() - started


def _waits(setting: Setting) -> tuple[bool, bool]:
    return setting.offload, setting.park


def _yes(wanted: bool) -> str:
    return "yes" if wanted else "no"


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f}"


if __name__ == "__main__":
    main()
