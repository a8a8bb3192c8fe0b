"""Run as a process: restores a span on the CPU and prints its peak resident memory, and what was predicted."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from services.inference.gpu.memory import Machine, Workload, predict, settings_of
from services.inference.gpu.model.kernels import choose_kernels
from services.inference.gpu.model.spec import SPECS, ModelSpec
from services.inference.gpu.model.untrained import untrained_model
from services.inference.gpu.pipeline import RestoreSettings, SpanRestorer

WIDTH, HEIGHT, FRAMES = 320, 192, 10
MACHINE = Machine(dtype="float32", passes="stacked")


def tiny() -> ModelSpec:
    """Everything that the released model's autoencoder has, narrower."""
    vae = replace(SPECS["seedvr2-3b"].vae, channels=(16, 32, 64, 64), norm_groups=8)
    return replace(SPECS["nano"], name="tiny", vae=vae, window_latents=2, slice_latents=2)


def main() -> None:
    spec = {"nano": SPECS["nano"], "tiny": tiny()}[sys.argv[1]]
    setting = settings_of(spec, MACHINE)[int(sys.argv[2])]
    torch.set_num_threads(1)
    cpu = torch.device("cpu")
    model = untrained_model(spec, choose_kernels(cpu, torch.float32), cpu, torch.float32)
    settings = RestoreSettings(width=WIDTH, height=HEIGHT, seed=0, first_frame=0, slice_latents=setting.slice_latents)
    restorer = SpanRestorer(model, settings, on_stage=lambda *_: None, checkpoint=lambda: None)
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT // 2, WIDTH // 2, 3), dtype=np.uint8)
    # ru_maxrss survives exec, so a large parent would hide what happens here.
    Path("/proc/self/clear_refs").write_text("5")
    count = sum(len(part) for part in restorer.push(frames)) + sum(len(part) for part in restorer.finish())
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    workload = Workload(width=WIDTH, height=HEIGHT, source_pixels=WIDTH * HEIGHT // 4)
    print(json.dumps({"frames": count, "peak": peak, "predicted": predict(spec, MACHINE, workload, setting).needed}))


if __name__ == "__main__":
    main()
