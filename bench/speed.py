"""Seconds a frame of the bare pipeline at 640x360, by stage, in fp32 and bf16, and how far apart their pictures are."""

import time
from collections import defaultdict

import numpy as np
import torch

from bench.table import print_table
from demo.__main__ import CLIPS
from services.inference.delivery.catalogue import EMBEDDED_DIRECTORY
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.weights import Model, load_model
from services.inference.gpu.pipeline import RestoreSettings, SpanRestorer
from tests.clips.noisy import read_clip, with_noise

FRAMES, WIDTH, HEIGHT = 5, 640, 360
STAGES = ("prepare", "vae_encode", "dit", "vae_decode", "colour")


def main() -> None:
    """Print both tables."""
    clean = read_clip(CLIPS / "bunny_truth.mp4")[:FRAMES]
    noisy = with_noise(clean, 12)
    runs = {name: _restore(noisy, dtype) for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))}
    rows = [_row(name, pictures, stages, clean) for name, (pictures, stages) in runs.items()]
    head = ("dtype", *(f"{stage} s" for stage in STAGES), "s/frame", "PSNR to the clean clip dB")
    machine = f"{torch.get_num_threads()} threads, torch {torch.__version__}"
    print_table(f"nano, {FRAMES} frames, {WIDTH}x{HEIGHT}, {machine}", head, rows)
    pictures = [pictures for pictures, _ in runs.values()]
    print(f"\nPSNR between float32 and bfloat16: {_psnr(*pictures):.1f} dB")


def _restore(noisy: np.ndarray, dtype: torch.dtype) -> tuple[np.ndarray, dict[str, float]]:
    model = load_model(SPECS["nano"], EMBEDDED_DIRECTORY / "nano", torch.device("cpu"), dtype)
    _run(model, noisy[:4])  # the first call pays for kernel selection
    return _run(model, noisy)


def _run(model: Model, noisy: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    stages: dict[str, float] = defaultdict(float)

    def on_stage(stage: str, seconds: float, frames: int) -> None:
        stages[stage] += seconds

    settings = RestoreSettings(width=WIDTH, height=HEIGHT, seed=666, first_frame=0)
    restorer = SpanRestorer(model, settings, on_stage=on_stage, checkpoint=lambda: None)
    start = time.perf_counter()
    pictures = np.concatenate([*restorer.push(noisy), *restorer.finish()])
    stages["all"] = time.perf_counter() - start
    return pictures, stages


def _row(name: str, pictures: np.ndarray, stages: dict[str, float], clean: np.ndarray) -> tuple[str, ...]:
    per_frame = [f"{stages[stage] / FRAMES:.3f}" for stage in (*STAGES, "all")]
    return (name, *per_frame, f"{_psnr(pictures, clean):.2f}")


def _psnr(a: np.ndarray, b: np.ndarray) -> float:
    error = np.mean((a.astype(np.float64) - b) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))
