"""What one rank does for ``bench.gpus``: restore clips with the others, time it, compare it with what one rank gave."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from bench.volume import expected_bytes, published_bytes, split_by
from services.inference.gpu.model.kernels import choose_kernels
from services.inference.gpu.model.sampler import condition
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.untrained import untrained_model
from services.inference.gpu.model.vae import VaeState
from services.inference.gpu.model.weights import Model, load_model
from services.inference.gpu.parallel.mesh import Mesh
from services.inference.gpu.pipeline import RestoreSettings, SpanRestorer

T = TypeVar("T")

STAGES = ("encode", "dit", "decode")
NANO = Path(__file__).parents[1] / "models" / "nano"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One clip."""

    width: int
    """Of the output, pixels."""

    height: int
    """Of the output, pixels."""

    frames: int
    """Of the clip: 4n + 1."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What all ranks of a group do."""

    model: str
    """Its name; nano has its real weights, others random ones."""

    dtype: str
    """What it computes in: float32 or bfloat16."""

    ranks: int
    """How many share each clip."""

    cases: tuple[Case, ...]
    """The clips."""

    backend: str
    """nccl or gloo."""

    directory: str
    """Where ranks meet, and where results lie: those of one rank are what others are compared with."""

    slice_latents: int
    """Latents that the autoencoder takes at a time; 0: half as many as ranks, at least the model's own choice."""


def run_rank(rank: int, work: Work) -> None:
    """Main of a rank. The first one writes a line of JSON for each case and prints it."""
    device = torch.device("cuda", rank) if work.backend == "nccl" else torch.device("cpu")
    torch.set_num_threads(1 if device.type == "cpu" else 8)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic = False, True
    torch.backends.cudnn.allow_tf32 = work.dtype != "float32"
    meeting = f"file://{work.directory}/{work.model}-{work.dtype}-{work.ranks}"
    mesh = Mesh.join(rank, work.ranks, device=device, init_method=meeting, backend=work.backend, timeout_s=120)
    model = make_model(work, mesh)
    for case in work.cases:
        measured = Clip(model, mesh, work, case).measure()
        if rank == 0:
            with (Path(work.directory) / "results.jsonl").open("a") as file:
                file.write(json.dumps(measured) + "\n")
    # Nobody leaves while others may still read from it.
    mesh.all_reduce(torch.zeros(1, device=device))
    synchronise(device)
    mesh.close()


def make_model(work: Work, mesh: Mesh) -> Model:
    """The same on every rank."""
    spec, dtype = SPECS[work.model], getattr(torch, work.dtype)
    if work.model == "nano":
        return load_model(spec, NANO, mesh.device, dtype, mesh)
    return untrained_model(spec, choose_kernels(mesh.device, dtype), mesh.device, dtype, mesh=mesh)


class Clip:
    """Random frames of a case, the three stages over them, and the whole pipeline."""

    def __init__(self, model: Model, mesh: Mesh, work: Work, case: Case) -> None:
        self._model, self._mesh, self._work, self._case = model, mesh, work, case
        spec = model.spec
        height, width = (-(-side // spec.size_multiple) * spec.size_multiple for side in (case.height, case.width))
        self._slice = work.slice_latents or max(spec.slice_latents, work.ranks // 2)
        factor = spec.vae.temporal_factor
        latents = (case.frames - 1) // factor + 1
        self._parts = [min(self._slice, latents - first) for first in range(0, latents, self._slice)]
        """Latents of each slice."""
        self._counts = [factor * part - (factor - 1 if index == 0 else 0) for index, part in enumerate(self._parts)]
        """Frames of each slice."""
        generator = torch.Generator().manual_seed(0)
        coarse = torch.rand((case.frames, 3, height // 4, width // 4), generator=generator) * 2 - 1
        # Blocks of 4x4 pixels, made on the device: full noise would take longer to draw than to restore.
        self._frames = coarse.to(mesh.device, model.dtype).repeat_interleave(4, 2).repeat_interleave(4, 3)

    def measure(self) -> dict[str, Any]:
        """Everything that the tables show."""
        mesh, device = self._mesh, self._mesh.device
        with torch.inference_mode():
            self._warm_up()
            reset_peak(device)
            sent = mesh.sent_bytes.total()
            times, results = self._run()
            sent = mesh.sent_bytes.total() - sent
            shares = self._communication() if mesh.size > 1 and device.type == "cuda" else {}
            step = self._step_bytes(results["latents"])
        whole = self._whole()
        peaks = mesh.all_gather(torch.tensor([peak_gb(device)], device=device), [1] * mesh.size).tolist()
        measured = asdict(self._work) | asdict(self._case) | {"split": split_by(self._model.spec.dit, mesh.size)}
        measured |= {"slice_latents": self._slice, "ms": times, "whole_ms": whole, "peak_gb": peaks, "sent_mb": sent / 1e6}
        measured |= {"communication": shares, "step": step, "difference": self._compare(results)}
        measured.pop("cases")
        if mesh.rank == 0:
            print(summary(measured), flush=True)
        return measured

    def _warm_up(self) -> None:
        """A few slices and every length of window: kernels are chosen and connections made at the first use."""
        self._encode(self._parts[:4])
        latents = torch.randn(self._shape(), device=self._mesh.device)
        for length in {len(window) for window in latents.split(self._model.spec.window_latents)}:
            self._denoise(latents[:length])
        self._decode(latents, self._parts[:4])

    def _run(self) -> tuple[dict[str, float], dict[str, Tensor]]:
        """Milliseconds of each stage and what it gave."""
        encode, latents = self._timed(lambda: self._encode(self._parts))
        windows = latents.split(self._model.spec.window_latents)
        dit, restored = self._timed(lambda: torch.cat([self._denoise(window) for window in windows]))
        decode, frames = self._timed(lambda: self._decode(restored, self._parts))
        return {"encode": encode, "dit": dit, "decode": decode}, {"latents": latents, "restored": restored, "frames": frames}

    def _encode(self, parts: list[int]) -> Tensor:
        state, frames = VaeState(), self._frames.split(self._counts)
        return torch.cat([self._model.vae.encode(frames[index], state) for index in range(len(parts))])

    def _denoise(self, latents: Tensor) -> Tensor:
        """One window in one step."""
        noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)).to(latents.device)
        inputs = torch.cat([noise, condition(latents)], dim=-1).to(self._model.dtype)
        velocity: Tensor = self._model.dit(inputs, self._model.text, torch.tensor(1000.0, device=latents.device))
        return noise - velocity.float()

    def _decode(self, latents: Tensor, parts: list[int]) -> Tensor:
        """Some frames of the beginning, the middle and the end, however slices are cut; more would only fill memory."""
        state, kept, start = VaeState(), [], 0
        for part in latents[: sum(parts)].split(parts):
            frames = self._model.vae.decode(part, state)
            wanted = [index for index in self._kept if start <= index < start + len(frames)]
            if wanted:
                kept.append(frames[[index - start for index in wanted]])
            start += len(frames)
        return torch.cat(kept)

    @property
    def _kept(self) -> list[int]:
        """Indices of frames that are compared."""
        count = self._case.frames
        return sorted({*range(min(9, count)), *range(count // 2, min(count // 2 + 4, count)), *range(max(0, count - 4), count)})

    def _shape(self) -> tuple[int, int, int, int]:
        factor = self._model.spec.vae.spatial_factor
        height, width = self._frames.shape[-2:]
        return sum(self._parts), height // factor, width // factor, self._model.spec.dit.latent_channels

    def _timed(self, work: Callable[[], T]) -> tuple[float, T]:
        """Milliseconds from when all ranks are there to when this one is done."""
        self._meet()
        start = time.perf_counter()
        result = work()
        synchronise(self._mesh.device)
        return (time.perf_counter() - start) * 1e3, result

    def _meet(self) -> None:
        self._mesh.all_reduce(torch.zeros(1, device=self._mesh.device))
        synchronise(self._mesh.device)

    def _communication(self) -> dict[str, float]:
        """Share of each stage's time in which a communication kernel runs, waiting for others included; a short run."""
        latents = torch.randn(self._shape(), device=self._mesh.device)
        window = latents[: self._model.spec.window_latents]
        stages = (
            lambda: self._encode(self._parts[:3]),
            lambda: self._denoise(window),
            lambda: self._decode(latents, self._parts[:3]),
        )
        return {name: self._communication_of(stage) for name, stage in zip(STAGES, stages, strict=True)}

    def _communication_of(self, stage: Callable[[], Tensor]) -> float:
        from torch.profiler import ProfilerActivity, profile

        self._meet()
        with profile(activities=[ProfilerActivity.CUDA]) as record:
            milliseconds, _ = self._timed(stage)
        kernels = [event for event in record.events() if "nccldevkernel" in event.name.lower()]
        kernels.sort(key=lambda event: event.time_range.start)
        # The first one waits for ranks that are still starting their profilers.
        return sum(event.time_range.elapsed_us() for event in kernels[1:]) / 1e3 / milliseconds

    def _step_bytes(self, latents: Tensor) -> dict[str, float]:
        """Bytes that the first rank sends in a step over one window, counted and expected."""
        spec, window = self._model.spec, latents[: self._model.spec.window_latents]
        before = self._mesh.sent_bytes.total()
        self._denoise(window)
        tokens = window[..., 0].numel() // spec.dit.patch**2
        facts = (spec.dit, tokens, len(self._model.text), self._mesh.size, self._model.text.element_size())
        return {
            "tokens": tokens,
            "sent": self._mesh.sent_bytes.total() - before,
            "expected": expected_bytes(*facts),
            "published": published_bytes(*facts),
        }

    def _whole(self) -> float:
        """Milliseconds from half-size 8-bit frames in memory to restored ones, everything included."""
        case = self._case
        source = np.random.default_rng(0).integers(0, 256, (8, case.height // 2, case.width // 2, 3), dtype=np.uint8)
        settings = RestoreSettings(width=case.width, height=case.height, seed=0, first_frame=0, slice_latents=self._slice)
        restorer = SpanRestorer(self._model, settings, on_stage=lambda *_: None, checkpoint=lambda: None)

        def restore() -> int:
            firsts = range(0, case.frames, len(source))
            pushed = sum(len(part) for first in firsts for part in restorer.push(source[: case.frames - first]))
            return pushed + sum(len(part) for part in restorer.finish())

        milliseconds, count = self._timed(restore)
        if count != case.frames:
            raise RuntimeError(f"{count} frames came out, not {case.frames}")
        return milliseconds

    def _compare(self, results: dict[str, Tensor]) -> dict[str, float]:
        """Relative L2 to what one rank gave, and by how much and how often 8-bit samples differ. One rank leaves its own here."""
        if self._mesh.rank:
            return {}
        work, case = self._work, self._case
        name = f"{work.model}-{work.dtype}-{case.width}x{case.height}x{case.frames}.pt"
        path, results = Path(work.directory) / name, {key: value.float().cpu() for key, value in results.items()}
        if work.ranks == 1:
            torch.save(results, path)
        if not path.exists():
            return {}
        alone = torch.load(path)
        return {key: apart(results[key], alone[key]) for key in alone} | samples_apart(results["frames"], alone["frames"])


def apart(mine: Tensor, expected: Tensor) -> float:
    """Relative L2 distance."""
    return float((mine - expected).norm() / expected.norm())


def samples_apart(mine: Tensor, expected: Tensor) -> dict[str, float]:
    """Of frames in [-1, 1]: the largest difference of 8-bit samples, and the share that differs."""
    whole = [frames.clamp(-1, 1).mul(127.5).add(127.5).round() for frames in (mine, expected)]
    difference = (whole[0] - whole[1]).abs()
    return {"largest": float(difference.max()), "differing": float((difference > 0).float().mean())}


def summary(measured: dict[str, Any]) -> str:
    """A line for the terminal."""
    stages = ", ".join(f"{name} {measured['ms'][name]:.0f}" for name in STAGES)
    shares = ", ".join(f"{name} {share:.0%}" for name, share in measured["communication"].items())
    difference = ", ".join(f"{name} {value:.2e}" for name, value in measured["difference"].items())
    return (
        f"{measured['model']} {measured['dtype']} {measured['width']}x{measured['height']} x {measured['frames']}, "
        f"P = {measured['ranks']} {measured['split']}: {stages} ms, whole {measured['whole_ms']:.0f} ms, "
        f"peak {max(measured['peak_gb']):.1f} GB; communication {shares or '-'}; to one rank: {difference or '-'}"
    )


def synchronise(device: torch.device) -> None:
    """Wait until the device is done."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    """Count the peak of memory from now on."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_gb(device: torch.device) -> float:
    """Most memory allocated on a GPU, in GB."""
    return torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else 0.0
