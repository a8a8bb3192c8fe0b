"""Noise and the steps from noise to a restored latent. All arithmetic is fp32.

A latent at time t in [0, 1000] lies on the line between the clean one and the noise: x_t = (1 - t/T) · x_0 + (t/T) · x_T. The
model predicts the velocity x_T - x_0.
"""

import hashlib
from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor

TIMESTEPS = 1000.0
"""T, the time of pure noise."""


def latent_noise(seed: int, source_index: int, shape: tuple[int, int, int]) -> Tensor:
    """The noise of one latent, on the CPU.

    Args:
        seed: of the job.
        source_index: of the last frame that the latent codes, so that a latent has one noise wherever a window begins.
        shape: (h, w, C).

    Returns:
        (h, w, C) fp32, standard normal.
    """
    digest = hashlib.sha256(f"{seed}:{source_index}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big"))
    return torch.randn(shape, generator=generator, dtype=torch.float32)


def trailing_timesteps(steps: int) -> list[float]:
    """Evenly spaced from 1000 downwards, 0 left out. In integers: a float range gains a step for some counts."""
    return [TIMESTEPS * (steps - k) / steps for k in range(steps)]


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


def sample(velocity_at: Callable[[Tensor, float], Tensor], noise: Tensor, steps: int = 1) -> Tensor:
    """Go from noise to the clean latent; SeedVR2 is distilled to one step.

    Args:
        velocity_at: latent and time to velocity.
    """
    x, times = noise, trailing_timesteps(steps)
    for t, s in pairwise(times):
        x = euler_step(x, velocity_at(x, t).float(), t, s)
    return predict_ends(x, velocity_at(x, times[-1]).float(), times[-1])[0]
