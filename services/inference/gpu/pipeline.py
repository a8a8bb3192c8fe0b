"""Restore one span, frame after frame, in memory that doesn't grow with its length.

Frames pass five stages: prepare (resize, pad), vae_encode, dit, vae_decode, colour. The autoencoder's state goes on through the
whole span. The transformer takes one window of latents at a time. What has been pushed and not yet returned is at most a
window and a slice; where pushes are cut changes nothing, because stages see whole slices and windows only.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from services.common.errors import GpuOutOfMemory, InvalidOption, InvalidVideo, ModelBroken
from services.inference.gpu.model.colour import transfer_wavelet
from services.inference.gpu.model.frames import Frames, crop, normalise, pad_to_multiple, quantise_on_device, resize, to_unit
from services.inference.gpu.model.sampler import condition, latent_noise, sample
from services.inference.gpu.model.vae import VaeState
from services.inference.gpu.model.weights import Model

STAGES = ("prepare", "vae_encode", "dit", "vae_decode", "colour")
COLOURS = ("wavelet", "none")

OnStage = Callable[[str, float, int], None]
"""Called after each stage with its name, its seconds and its frames."""

Checkpoint = Callable[[], None]
"""Called where work can stop: before each slice, each window and each transformer block. Raises to stop it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreSettings:
    """What decides a span's pixels besides its frames and the model, and how to go about it."""

    width: int
    """Of the restored frames, pixels."""

    height: int
    """Of the restored frames, pixels."""

    seed: int
    """Of the noise."""

    first_frame: int
    """Source index of the first frame pushed; noise is drawn by source index."""

    colour: str = "wavelet"
    """Colour transfer from the source: wavelet or none."""

    window_latents: int = 0
    """Latents that the transformer takes at a time; 0: the model's own choice."""

    overlap_latents: int = 0
    """Latents that consecutive windows share; only 0 so far."""

    slice_latents: int = 0
    """Latents that the autoencoder takes at a time; 0: the model's own choice. Changes nothing but rounding."""

    bit_depth: int = 8
    """Of the frames that come in and go out: 8 or 16."""

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 1:
            raise InvalidOption(f"an output of {self.width}x{self.height} pixels", field="width")
        if self.colour not in COLOURS:
            raise InvalidOption(f"colour transfer {self.colour!r}; known are {', '.join(COLOURS)}", field="colour")
        if self.overlap_latents != 0:
            raise InvalidOption("windows can't share latents yet; overlap_latents must be 0", field="overlap_latents")
        if min(self.window_latents, self.slice_latents, self.first_frame) < 0:
            raise InvalidOption("window_latents, slice_latents and first_frame can't be negative", field="window_latents")
        if self.bit_depth not in (8, 16):
            raise InvalidOption(f"frames of {self.bit_depth} bits; 8 and 16 are known", field="bit_depth")


class SpanRestorer:
    """Takes the frames of one span in order and gives each one back restored.

    Several restorers can share a model and take turns: all state is here.
    """

    def __init__(self, model: Model, settings: RestoreSettings, *, on_stage: OnStage, checkpoint: Checkpoint) -> None:
        self._model = model
        self._settings = settings
        self._stages = _stages(model.device, on_stage)
        self._checkpoint = checkpoint
        self._window_latents = settings.window_latents or model.spec.window_latents
        self._slice_latents = settings.slice_latents or model.spec.slice_latents
        self._encoder, self._decoder = VaeState(), VaeState()
        self._waiting: deque[Frames] = deque()
        """Frames pushed, not yet encoded; fewer than a slice between calls."""
        self._sources: deque[Frames] = deque()
        """Frames encoded, not yet decoded; at most a window."""
        self._window: list[Tensor] = []
        """Encoded slices of the window that is being filled."""
        self._next_latent = 0
        """Index, within the span, of the next latent to encode."""

    def push(self, frames: Frames) -> Iterator[Frames]:
        """Take the next frames and give back what is finished. Use the iterator up before the next call.

        Args:
            frames: (T, H, W, 3) RGB; copied.

        Yields:
            (t, height, width, 3) restored frames, in order.

        Raises:
            InvalidVideo: the frames are not like those before.
            GpuOutOfMemory: a stage didn't fit; this restorer is of no use any more, the model is.
        """
        self._check(frames)
        self._waiting.extend(np.array(frames))
        while len(self._waiting) >= (needed := self._slice_frames()):
            yield from self._encode([self._waiting.popleft() for _ in range(needed)])

    def finish(self) -> Iterator[Frames]:
        """Give back the rest: as many frames come out in all as were pushed."""
        padding = 0
        if self._waiting:
            padding = self._complete_latent()
            yield from self._encode([self._waiting.popleft() for _ in range(len(self._waiting))], padding)
        if self._window:
            yield from self._restore_window(padding)

    def _check(self, frames: Frames) -> None:
        depth = self._settings.bit_depth
        if (frames.dtype.name, frames.ndim, frames.shape[-1]) != (f"uint{depth}", 4, 3):
            raise InvalidVideo(f"frames are {frames.dtype} {frames.shape}, not {depth}-bit (T, H, W, 3)")
        before = self._waiting or self._sources
        if before and frames.shape[1:] != before[-1].shape:
            raise InvalidVideo(f"frame size changes from {before[-1].shape[:2]} to {frames.shape[1:3]}")

    def _slice_frames(self) -> int:
        """Frames that the next slice of latents codes; a slice ends with the window at the latest."""
        latents = min(self._slice_latents, self._window_latents - self._next_latent % self._window_latents)
        return self._coded_frames(self._next_latent, latents)

    def _coded_frames(self, first_latent: int, latents: int) -> int:
        factor = self._model.spec.vae.temporal_factor
        return latents * factor - (factor - 1 if first_latent == 0 else 0)

    def _complete_latent(self) -> int:
        """Repeat the last frame until the frames waiting fill whole latents; how often it was repeated."""
        factor = self._model.spec.vae.temporal_factor
        padding = -(len(self._waiting) - (1 if self._next_latent == 0 else 0)) % factor
        self._waiting.extend([self._waiting[-1]] * padding)
        return padding

    def _encode(self, frames: list[Frames], padding: int = 0) -> Iterator[Frames]:
        self._checkpoint()
        with self._stage("prepare", len(frames)):
            prepared = pad_to_multiple(self._prepare(frames), self._model.spec.size_multiple).to(self._model.dtype)
        with self._stage("vae_encode", len(frames)):
            latents = self._model.vae.encode(prepared, self._encoder)
        self._window.append(latents)
        self._sources.extend(frames)
        self._next_latent += len(latents)
        if self._next_latent % self._window_latents == 0:
            yield from self._restore_window(padding)

    def _prepare(self, frames: list[Frames]) -> Tensor:
        """(T, 3, height, width) in [-1, 1]."""
        unit = to_unit(np.stack(frames), self._model.device)
        return normalise(resize(unit, self._settings.height, self._settings.width))

    def _restore_window(self, padding: int) -> Iterator[Frames]:
        """Denoise and decode the window; the last ``padding`` frames are not given back."""
        low_quality = torch.cat(self._window)
        self._window.clear()
        first = self._next_latent - len(low_quality)
        with self._stage("dit", len(self._sources)):
            restored = self._denoise(low_quality, first)
        downloads: deque[_Download] = deque()
        for start in range(0, len(restored), self._slice_latents):
            latents = restored[start : start + self._slice_latents]
            count = self._coded_frames(first + start, len(latents))
            last = start + len(latents) == len(restored)
            downloads.append(self._decode(latents, count, count - padding if last else count))
            # A GPU works on the next slice while the frames of this one are fetched and used.
            while len(downloads) > self._stages.ahead:
                yield self._fetch(downloads.popleft())
        self._stages.report()
        while downloads:
            yield self._fetch(downloads.popleft())

    def _denoise(self, low_quality: Tensor, first_latent: int) -> Tensor:
        """(L, h, w, C) scaled latents to the same, restored."""
        self._checkpoint()
        model, factor = self._model, self._model.spec.vae.temporal_factor
        shape = (low_quality.shape[1], low_quality.shape[2], low_quality.shape[3])
        indices = [self._settings.first_frame + (first_latent + i) * factor for i in range(len(low_quality))]
        noise = torch.stack([latent_noise(self._settings.seed, index, shape) for index in indices]).to(model.device)
        conditioned = condition(low_quality)

        def velocity_at(x: Tensor, t: float) -> Tensor:
            inputs = torch.cat([x, conditioned], dim=-1).to(model.dtype)
            velocity: Tensor = model.dit(inputs, model.text, torch.tensor(t, device=model.device), self._checkpoint)
            return velocity

        return sample(velocity_at, noise)

    def _decode(self, latents: Tensor, count: int, wanted: int) -> "_Download":
        """``count`` frames, of which the first ``wanted`` are given back."""
        self._checkpoint()
        sources = [self._sources.popleft() for _ in range(count)]
        with self._stage("vae_decode", count):
            decoded = self._model.vae.decode(latents, self._decoder)
        with self._stage("colour", count):
            return self._finish_colours(crop(decoded, self._settings.height, self._settings.width)[:wanted], sources[:wanted])

    def _finish_colours(self, decoded: Tensor, sources: list[Frames]) -> "_Download":
        finite = decoded.sum(dtype=torch.float32).isfinite()
        if self._settings.colour == "wavelet":
            decoded = transfer_wavelet(decoded, self._prepare(sources))
        return _Download(quantise_on_device(decoded, self._settings.bit_depth), finite)

    def _fetch(self, download: "_Download") -> Frames:
        finite, frames = download.wait()
        if not finite:
            raise ModelBroken(f"model {self._model.spec.name} gave pixels that are not numbers")
        return frames

    @contextmanager
    def _stage(self, name: str, frames: int) -> Iterator[None]:
        try:
            with torch.inference_mode(), self._stages.time(name, frames):
                yield
        except torch.OutOfMemoryError as error:
            size = f"{self._settings.width}x{self._settings.height}"
            raise GpuOutOfMemory(f"stage {name} of {frames} frames at {size} needs more memory than is free") from error


class _Stages:
    """Times stages where they end when the host is done with them."""

    ahead = 0
    """Slices that the host may be ahead of what is finished."""

    def __init__(self, on_stage: OnStage) -> None:
        self._on_stage = on_stage

    @contextmanager
    def time(self, name: str, frames: int) -> Iterator[None]:
        """Report the stage inside when it has ended, unless it failed."""
        start = time.perf_counter()
        yield
        self._on_stage(name, time.perf_counter() - start, frames)

    def report(self) -> None:
        """Wait for what runs and report it."""


class _GpuStages(_Stages):
    """Times stages by events in the GPU's stream, so that the host can prepare what comes next."""

    ahead = 1

    def __init__(self, on_stage: OnStage) -> None:
        super().__init__(on_stage)
        self._running: deque[tuple[str, int, torch.cuda.Event, torch.cuda.Event]] = deque()

    @contextmanager
    def time(self, name: str, frames: int) -> Iterator[None]:
        """As above; but the host runs ahead by a slice at most, so that work can still be stopped between slices."""
        start, end = _event(), _event()
        start.record()
        yield
        end.record()
        self._running.append((name, frames, start, end))
        self._report_all_but(2)

    def report(self) -> None:
        self._report_all_but(0)

    def _report_all_but(self, count: int) -> None:
        while len(self._running) > count:
            name, frames, start, end = self._running.popleft()
            end.synchronize()
            self._on_stage(name, start.elapsed_time(end) / 1e3, frames)


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]


def _stages(device: torch.device, on_stage: OnStage) -> _Stages:
    return _GpuStages(on_stage) if device.type == "cuda" else _Stages(on_stage)


class _Download:
    """Finished frames on their way to the host, and whether they are numbers."""

    def __init__(self, frames: Tensor, finite: Tensor) -> None:
        self._frames = frames.to("cpu", non_blocking=True)
        self._finite = finite.to("cpu", non_blocking=True)
        self._arrived: torch.cuda.Event | None = None
        if frames.is_cuda:
            self._arrived = _event()
            self._arrived.record()

    def wait(self) -> tuple[bool, Frames]:
        """Whether all are finite, and the frames."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return bool(self._finite), self._frames.numpy()


def self_test(model: Model, *, frames: int = 5, side: int = 64) -> float:
    """Restore a few small frames, to know that the model works on this device before saying so.

    Returns:
        Seconds it took.

    Raises:
        ModelBroken: what came out is not a picture.
        GpuOutOfMemory: not even this fits.
    """
    start = time.perf_counter()
    ramp = np.linspace(40, 215, side, dtype=np.uint8)
    picture = np.broadcast_to(np.stack([ramp[:, None] + ramp[None, :] // 8] * 3, axis=-1), (side, side, 3))
    source = np.stack([np.roll(picture, shift, axis=0) for shift in range(frames)])
    settings = RestoreSettings(width=side, height=side, seed=0, first_frame=0)
    restorer = SpanRestorer(model, settings, on_stage=lambda *_: None, checkpoint=lambda: None)
    restored = np.concatenate([*restorer.push(source), *restorer.finish()])
    if restored.shape != source.shape or restored.std() == 0:
        raise ModelBroken(f"model {model.spec.name} restored a test picture to {restored.shape}, not a picture")
    return time.perf_counter() - start
