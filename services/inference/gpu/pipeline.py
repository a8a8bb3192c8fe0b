"""Restore one span, frame after frame, in memory that doesn't grow with its length.

Frames pass five stages: prepare (resize, pad), vae_encode, dit, vae_decode, colour. Nothing flows over a cut: each shot of the
span is restored as if it stood alone. Inside a shot the autoencoder's state goes on from the first frame to the last, and the
transformer takes one window of latents after the other, stitched where they overlap. What has been pushed and not yet returned
is at most a window and a slice; where pushes are cut changes nothing, because stages see whole slices and windows only.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from services.common.colours import COLOURS
from services.common.errors import GpuOutOfMemory, InvalidOption, InvalidVideo, ModelBroken
from services.inference.gpu.model.alpha import enlarge_alpha
from services.inference.gpu.model.colour.transfer import ColourTransfer
from services.inference.gpu.model.frames import Frames, crop, normalise, pad_to_multiple, quantise_on_device, resize, to_unit
from services.inference.gpu.model.parking import Parking
from services.inference.gpu.model.sampler import NOISES, condition, noise_of, sample
from services.inference.gpu.model.strength import weaken_frames, weaken_latents
from services.inference.gpu.model.vae import VaeState
from services.inference.gpu.model.weights import Model
from services.inference.gpu.stages import Download, OnStage, Stages, stages_on
from services.inference.gpu.stitching import LatentWindows

STAGES = ("prepare", "vae_encode", "dit", "vae_decode", "colour")

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

    colour: str = COLOURS[0]
    """Colour transfer from the source; one of COLOURS."""

    cuts: tuple[int, ...] = ()
    """Source indices, ascending, of frames that begin a shot: nothing before them is remembered."""

    noise: str = NOISES[0]
    """How noise is drawn from the seed."""

    window_latents: int = 0
    """Latents that the transformer takes at a time; 0: the model's own choice, and so is what windows share."""

    overlap_latents: int = 0
    """Latents that consecutive windows share; at most half of a window."""

    slice_latents: int = 0
    """Latents that the autoencoder takes at a time; 0: the model's own choice. Changes nothing but rounding."""

    park: bool = False
    """Whether encoder and decoder state take turns on the device, which saves the smaller of them. Changes nothing."""

    bit_depth: int = 8
    """Of the frames that come in and go out: 8 or 16."""

    alpha: bool = False
    """Whether they have a fourth channel, transparency."""

    input_noise: float = 0.0
    """Noise added to the frames before they are encoded, 0 to 1."""

    latent_noise: float = 0.0
    """How far the model is made to distrust its input, 0 to 1."""

    steps: int = 1
    """From noise to the result; at most the model's ``max_steps``."""

    def __post_init__(self) -> None:
        if min(self.width, self.height) < 1:
            raise InvalidOption(f"an output of {self.width}x{self.height} pixels", field="width")
        if self.colour not in COLOURS:
            raise InvalidOption(f"colour transfer {self.colour!r}; known are {', '.join(COLOURS)}", field="colour")
        if self.noise not in NOISES:
            raise InvalidOption(f"noise {self.noise!r}; known are {', '.join(NOISES)}", field="noise")
        if min(self.window_latents, self.slice_latents, self.first_frame) < 0:
            raise InvalidOption("window_latents, slice_latents and first_frame can't be negative", field="window_latents")
        if not 0 <= 2 * self.overlap_latents <= self.window_latents:
            raise InvalidOption(
                f"windows of {self.window_latents} latents can't share {self.overlap_latents}, only up to half",
                field="overlap_latents",
            )
        for name in ("input_noise", "latent_noise"):
            if not 0 <= getattr(self, name) <= 1:
                raise InvalidOption(f"{name} of {getattr(self, name)}; it lies between 0 and 1", field=name)
        if self.bit_depth not in (8, 16):
            raise InvalidOption(f"frames of {self.bit_depth} bits; 8 and 16 are known", field="bit_depth")


class SpanRestorer:
    """Takes the frames of one span in order and gives each one back restored.

    Several restorers can share a model and take turns: all state is here.
    """

    def __init__(
        self, model: Model, settings: RestoreSettings, *, on_stage: OnStage, checkpoint: Checkpoint,
        pause: Checkpoint | None = None,
    ) -> None:  # fmt: skip
        """``pause`` is called in place of ``checkpoint`` between slices and windows, where another restorer may take a turn."""
        if not 1 <= settings.steps <= model.spec.max_steps:
            raise InvalidOption(f"{settings.steps} steps; {model.spec.name} takes 1 to {model.spec.max_steps}", field="steps")
        self._model = model
        self._settings = settings
        self._stages = stages_on(model.device, on_stage)
        self._checkpoint = checkpoint
        self._pause = pause or checkpoint
        self._next = settings.first_frame
        """Source index of the next frame."""
        self._size: tuple[int, ...] | None = None
        """Of the frames, once there was one."""
        self._shot = self._new_shot()

    def push(self, frames: Frames) -> Iterator[Frames]:
        """Take the next frames and give back what is finished. Use the iterator up before the next call.

        Args:
            frames: (T, H, W, 3) RGB, or (T, H, W, 4) RGBA where the settings say so; copied.

        Yields:
            (t, height, width, 3 or 4) restored frames, in order.

        Raises:
            InvalidVideo: the frames are not like those before.
            GpuOutOfMemory: a stage didn't fit; this restorer is of no use any more, the model is.
        """
        self._check(frames)
        begin, end = self._next, self._next + len(frames)
        borders = [begin, *(cut for cut in self._settings.cuts if begin <= cut < end), end]
        for first, stop in pairwise(borders):
            if first in self._settings.cuts:
                yield from self._shot.finish()
                self._next = first
                self._shot = self._new_shot()
            yield from self._shot.push(frames[first - begin : stop - begin])
        self._next = end

    def finish(self) -> Iterator[Frames]:
        """Give back the rest: as many frames come out in all as were pushed."""
        return self._shot.finish()

    def aside(self) -> AbstractContextManager[None]:
        """Keep what this span remembers in host memory inside the block, in which another restorer has the device."""
        return self._shot.aside()

    def _check(self, frames: Frames) -> None:
        depth, channels = self._settings.bit_depth, 4 if self._settings.alpha else 3
        if (frames.dtype.name, frames.ndim, frames.shape[-1]) != (f"uint{depth}", 4, channels):
            raise InvalidVideo(f"frames are {frames.dtype} {frames.shape}, not {depth}-bit (T, H, W, {channels})")
        if self._size is not None and frames.shape[1:] != self._size:
            raise InvalidVideo(f"frame size changes from {self._size[:2]} to {frames.shape[1:3]}")
        self._size = frames.shape[1:]

    def _new_shot(self) -> "_Shot":
        return _Shot(self._model, self._settings, self._next, self._stages, self._checkpoint, self._pause)


class _Shot:
    """The frames between two cuts, or as many of them as the span has."""

    def __init__(
        self, model: Model, settings: RestoreSettings, first_frame: int, stages: Stages, checkpoint: Checkpoint,
        pause: Checkpoint,
    ) -> None:  # fmt: skip
        self._model = model
        self._settings = settings
        self._first_frame = first_frame
        self._stages = stages
        self._checkpoint = checkpoint
        self._pause = pause
        spec = model.spec
        length, shared = settings.window_latents, settings.overlap_latents
        self._windows = LatentWindows(length, shared) if length else LatentWindows(spec.window_latents, spec.overlap_latents)
        self._slice_latents = settings.slice_latents or spec.slice_latents
        self._encoder, self._decoder = VaeState(), VaeState()
        self._parking = Parking(model.device, self._encoder, self._decoder) if settings.park else None
        self._colour = ColourTransfer(settings.colour) if settings.colour != "none" else None
        self._waiting: deque[Frames] = deque()
        """Frames pushed, not yet encoded; fewer than a slice between calls."""
        self._sources: deque[Frames] = deque()
        """Frames encoded, not yet decoded; at most a window."""
        self._decoded = 0
        """Latents decoded."""

    def push(self, frames: Frames) -> Iterator[Frames]:
        self._waiting.extend(np.array(frames))
        while len(self._waiting) >= (needed := self._slice_frames()):
            self._encode([self._waiting.popleft() for _ in range(needed)])
            if not self._windows.room:
                yield from self._decode_all(self._denoise())

    def finish(self) -> Iterator[Frames]:
        padding = 0
        if self._waiting:
            padding = self._complete_latent()
            self._encode([self._waiting.popleft() for _ in range(len(self._waiting))])
        # Nothing is encoded any more.
        self._encoder.tails.clear()
        last = self._denoise() if self._windows.pending else None
        final = [latents for latents in (last, self._windows.rest()) if latents is not None]
        if final:
            yield from self._decode_all(torch.cat(final), padding)

    @contextmanager
    def aside(self) -> Iterator[None]:
        parking = self._parking or Parking(self._model.device, self._encoder, self._decoder)
        parking.enter(None)
        yield
        if self._parking is None:
            parking.fetch()

    def _slice_frames(self) -> int:
        """Frames that the next slice of latents codes; a slice ends with the window at the latest."""
        return self._coded_frames(self._windows.count, min(self._slice_latents, self._windows.room))

    def _coded_frames(self, first_latent: int, latents: int) -> int:
        factor = self._model.spec.vae.temporal_factor
        return latents * factor - (factor - 1 if first_latent == 0 else 0)

    def _complete_latent(self) -> int:
        """Repeat the last frame until the frames waiting fill whole latents; how often it was repeated."""
        factor = self._model.spec.vae.temporal_factor
        padding = -(len(self._waiting) - (1 if self._windows.count == 0 else 0)) % factor
        self._waiting.extend([self._waiting[-1]] * padding)
        return padding

    def _encode(self, frames: list[Frames]) -> None:
        self._pause()
        with self._stage("prepare", len(frames)):
            prepared = self._weakened(self._prepare(frames))
            prepared = pad_to_multiple(prepared, self._model.spec.size_multiple).to(self._model.dtype)
        with self._stage("vae_encode", len(frames)):
            self._enter(self._encoder)
            self._windows.add(self._model.vae.encode(prepared, self._encoder))
        self._sources.extend(frames)

    def _enter(self, state: VaeState | None) -> None:
        if self._parking is not None:
            self._parking.enter(state)

    def _prepare(self, frames: list[Frames]) -> Tensor:
        """(T, 3, height, width) in [-1, 1]."""
        unit = to_unit(np.stack(frames)[..., :3], self._model.device)
        return normalise(resize(unit, self._settings.height, self._settings.width))

    def _weakened(self, frames: Tensor) -> Tensor:
        settings, encoded = self._settings, self._coded_frames(0, self._windows.count) if self._windows.count else 0
        return weaken_frames(frames, settings.input_noise, seed=settings.seed, first_frame=self._first_frame + encoded)

    def _denoise(self) -> Tensor:
        """Restore the window that is full; the latents that are final now, (L, h, w, C)."""
        self._pause()
        new = self._windows.pending
        first, low_quality = self._windows.take()
        with self._stage("dit", self._coded_frames(self._windows.count - new, new)):
            self._enter(None)
            return self._windows.join(first, self._restored(low_quality, first))

    def _restored(self, low_quality: Tensor, first_latent: int) -> Tensor:
        """(L, h, w, C) scaled latents to the same, restored."""
        model, settings, factor = self._model, self._settings, self._model.spec.vae.temporal_factor
        # A latent has the noise of the last frame that it codes, whichever window it is in.
        indices = [self._first_frame + (first_latent + i) * factor for i in range(len(low_quality))]
        noise = noise_of(settings.noise, settings.seed, indices, low_quality.shape[1:]).to(model.device)
        weakened = weaken_latents(
            low_quality, settings.latent_noise, way=settings.noise, seed=settings.seed, source_indices=indices, vae=model.spec.vae
        )
        conditioned = condition(weakened)

        def velocity_at(x: Tensor, t: float) -> Tensor:
            inputs = torch.cat([x, conditioned], dim=-1).to(model.dtype)
            velocity: Tensor = model.dit(inputs, model.text, torch.tensor(t, device=model.device), self._checkpoint)
            return velocity

        return sample(velocity_at, noise, settings.steps)

    def _decode_all(self, latents: Tensor, padding: int = 0) -> Iterator[Frames]:
        """Decode final latents, (L, h, w, C); the last ``padding`` frames are not given back."""
        downloads: deque[Download] = deque()
        for start in range(0, len(latents), self._slice_latents):
            piece = latents[start : start + self._slice_latents]
            count = self._coded_frames(self._decoded, len(piece))
            self._decoded += len(piece)
            last = self._decoded == self._windows.count
            downloads.append(self._decode(piece, count, count - padding if last else count))
            # A GPU works on the next slice while the frames of this one are fetched and used.
            while len(downloads) > self._stages.ahead:
                yield self._fetch(downloads.popleft())
        self._stages.report()
        while downloads:
            yield self._fetch(downloads.popleft())

    def _decode(self, latents: Tensor, count: int, wanted: int) -> Download:
        """``count`` frames, of which the first ``wanted`` are given back."""
        self._pause()
        sources = [self._sources.popleft() for _ in range(count)]
        with self._stage("vae_decode", count):
            self._enter(self._decoder)
            decoded = self._model.vae.decode(latents, self._decoder)
        with self._stage("colour", count):
            return self._finish_colours(crop(decoded, self._settings.height, self._settings.width)[:wanted], sources[:wanted])

    def _finish_colours(self, decoded: Tensor, sources: list[Frames]) -> Download:
        finite = decoded.sum(dtype=torch.float32).isfinite()
        alpha = self._enlarged_alpha(decoded, sources) if self._settings.alpha else None
        if self._colour is not None:
            decoded = self._colour(decoded, self._prepare(sources))
        if alpha is not None:
            decoded = torch.cat([decoded.float(), normalise(alpha)], dim=1)
        return Download(quantise_on_device(decoded, self._settings.bit_depth), finite)

    def _enlarged_alpha(self, decoded: Tensor, sources: list[Frames]) -> Tensor:
        alpha = to_unit(np.stack([picture[..., 3:] for picture in sources]), self._model.device)
        return enlarge_alpha(alpha, decoded)

    def _fetch(self, download: Download) -> Frames:
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


_TEST_FRAMES, _TEST_SIDE = 5, 64
# Enough work for a GPU to show more than what its calls cost; a CPU shows that with less.
_SPEED_SIDES = {"cuda": 256}


def measure_speed(model: Model) -> float:
    """Output megapixels a second, of small frames, by a model that has passed its self-test. Raises as that does."""
    side = _SPEED_SIDES.get(model.device.type, _TEST_SIDE)
    if side != _TEST_SIDE:
        # What is compiled or chosen at the first frames of a size would count.
        self_test(model, side=side)
    return _TEST_FRAMES * side * side / 1e6 / self_test(model, side=side)


def self_test(model: Model, *, frames: int = _TEST_FRAMES, side: int = _TEST_SIDE) -> float:
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
