"""Noise and the steps from noise to a restored latent. All arithmetic is fp32.

A latent at time t in [0, 1000] lies on the line between the clean one and the noise: x_t = (1 - t/T) · x_0 + (t/T) · x_T. The
model predicts the velocity x_T - x_0.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from services.common.errors import InvalidOption
from services.common.plan import NOISE

TIMESTEPS = 1000.0
"""T, the time of pure noise."""

NOISES = (NOISE, "one-sha256-v1")
"""Ways to draw noise: a draw for each latent, by the source index of its last frame; or one draw for all of them."""

VelocityAt = Callable[[Tensor, float], Tensor]
"""Latent and time to velocity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Guidance:
    """Away from what a negative text asks for. SeedVR2 is distilled to do without; it is meant for models of many steps."""

    negative_at: VelocityAt
    """The velocity with the negative text."""

    scale: float
    """1 leaves the positive velocity as it is."""

    rescale: float = 0.0
    """How far, from 0 to 1, a velocity's spread over channels goes back to that of the positive one."""

    partial: float = 1.0
    """Share of the steps, the first ones, that are guided."""

    def __post_init__(self) -> None:
        if not 0 <= self.rescale <= 1:
            raise InvalidOption(f"a guidance rescale of {self.rescale}; it lies between 0 and 1", field="cfg_rescale")
        if not 0 < self.partial <= 1:
            raise InvalidOption(
                f"a guided share of the steps of {self.partial}; it is above 0 and at most 1", field="cfg_partial"
            )

    def counts(self, step: int, steps: int) -> bool:
        """Whether a step, counted from 1, is guided."""
        return self.scale != 1 and step / steps <= self.partial


def latent_noise(seed: int, source_index: int, shape: tuple[int, int, int], *, purpose: str = "") -> Tensor:
    """The noise of one latent, on the CPU.

    Args:
        seed: of the job.
        source_index: of the last frame that the latent codes, so that a latent has one noise wherever a window begins.
        shape: (h, w, C).
        purpose: noise for another one is independent.

    Returns:
        (h, w, C) fp32, standard normal.
    """
    digest = hashlib.sha256(f"{purpose}{seed}:{source_index}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def noise_of(way: str, seed: int, source_indices: Sequence[int], shape: Sequence[int], *, purpose: str = "") -> Tensor:
    """The noise of consecutive latents, (L, h, w, C) fp32 on the CPU; ``way`` is one of :data:`NOISES`, ``shape`` (h, w, C)."""
    height, width, channels = shape
    indices = source_indices if way == NOISES[0] else [0] * len(source_indices)
    return torch.stack([latent_noise(seed, index, (height, width, channels), purpose=purpose) for index in indices])


def trailing_timesteps(steps: int, shift: float = 1.0) -> list[float]:
    """Evenly spaced from 1000 downwards, 0 left out, then shifted. In integers: a float range gains a step for some counts."""
    return [shift_timestep(TIMESTEPS * (steps - k) / steps, shift) for k in range(steps)]


def shift_timestep(t: float, shift: float) -> float:
    """Spend more of the way near the noise (shift > 1) or near the clean latent; 0 and 1000 stay where they are."""
    share = t / TIMESTEPS
    return TIMESTEPS * shift * share / (1 + (shift - 1) * share)


def resolution_shift(latent: tuple[int, int, int], *, spatial_factor: int, temporal_factor: int) -> float:
    """The shift that goes with a size: larger pictures and longer clips bear more noise.

    Args:
        latent: (t, h, w) of the low-quality latent.
        spatial_factor: pixels a latent position, along each side.
        temporal_factor: frames a latent.
    """
    time, height, width = latent
    frames = (time - 1) * temporal_factor + 1
    pixels = height * width * spatial_factor**2
    if frames == 1:
        return _line(pixels, (256 * 256, 1.0), (1024 * 1024, 3.2))
    return _line(pixels * frames, (256 * 256 * 37, 1.0), (1280 * 720 * 145, 5.0))


def _line(x: float, start: tuple[float, float], end: tuple[float, float]) -> float:
    return start[1] + (end[1] - start[1]) * (x - start[0]) / (end[0] - start[0])


def noise_low_quality(low_quality: Tensor, noise: Tensor, t: float) -> Tensor:
    """Take the low-quality latent to time t, so that the model invents more and keeps less of it.

    Args:
        low_quality: (t, h, w, C).
        noise: the same shape, standard normal, independent of the noise that is sampled from.
        t: in [0, 1000]: 1000 · strength, shifted by :func:`resolution_shift`. 0 changes nothing.
    """
    share = t / TIMESTEPS
    return (1 - share) * low_quality + share * noise


def predict_ends(x_t: Tensor, velocity: Tensor, t: float) -> tuple[Tensor, Tensor]:
    """The clean latent and the noise that a velocity at time t points to."""
    share = t / TIMESTEPS
    return x_t - share * velocity, x_t + (1 - share) * velocity


def euler_step(x_t: Tensor, velocity: Tensor, t: float, s: float) -> Tensor:
    """From time t to time s along the velocity."""
    clean, noise = predict_ends(x_t, velocity, t)
    share = s / TIMESTEPS
    return (1 - share) * clean + share * noise


def condition(low_quality: Tensor) -> Tensor:
    """(…, C) low-quality latent to (…, C + 1): with the mask channel that asks for restoration everywhere."""
    return torch.cat([low_quality, torch.ones_like(low_quality[..., :1])], dim=-1)


def guide(positive: Tensor, negative: Tensor, scale: float, rescale: float = 0.0) -> Tensor:
    """The velocity that goes past the positive one, away from the negative one; (…, C), fp32.

    Standard deviations, where ``rescale`` asks for them, are over the channels of each position.
    """
    guided = negative + scale * (positive - negative)
    if rescale == 0:
        return guided
    spread = positive.std(-1, keepdim=True) / guided.std(-1, keepdim=True)
    return guided * (rescale * spread + 1 - rescale)


def sample(velocity_at: VelocityAt, noise: Tensor, steps: int = 1, *, guidance: Guidance | None = None) -> Tensor:
    """Go from noise to the clean latent; SeedVR2 is distilled to one step without guidance.

    Args:
        velocity_at: with the positive text.
        noise: (t, h, w, C), fp32.
        steps: at least 1.
        guidance: by a negative text; its velocities are asked for only where they count.
    """
    x, times = noise, trailing_timesteps(steps)
    for step, (t, s) in enumerate(zip(times, [*times[1:], None], strict=True), start=1):
        velocity = velocity_at(x, t).float()
        if guidance is not None and guidance.counts(step, steps):
            velocity = guide(velocity, guidance.negative_at(x, t).float(), guidance.scale, guidance.rescale)
        x = predict_ends(x, velocity, t)[0] if s is None else euler_step(x, velocity, t, s)
    return x
