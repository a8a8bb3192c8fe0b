"""How much the model is made to distrust its input: noise on the frames, noise on the low-quality latents.

More of either makes the model invent more and keep less. Noise is drawn on the CPU by seed and source index, apart from the noise
that is sampled from, so that it is the same wherever chunks, windows and spans are cut.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from services.inference.gpu.model.sampler import (
    TIMESTEPS,
    latent_noise,
    noise_low_quality,
    noise_of,
    resolution_shift,
    shift_timestep,
)
from services.inference.gpu.model.spec import VaeSpec

_FRAME_SHARE = 0.025
"""Standard deviation of the noise at strength 1, of frames in [-1, 1]."""

_FRAMES, _LATENTS = "frame:", "condition:"


def weaken_frames(frames: Tensor, strength: float, *, seed: int, first_frame: int) -> Tensor:
    """Add noise to frames before they are encoded.

    Args:
        frames: (T, 3, H, W) in [-1, 1].
        strength: from 0, which changes nothing, to 1.
        seed: of the job.
        first_frame: source index of the first one.
    """
    if strength == 0:
        return frames
    shape = (frames.shape[1], frames.shape[2], frames.shape[3])
    noise = torch.stack([latent_noise(seed, first_frame + i, shape, purpose=_FRAMES) for i in range(len(frames))])
    return frames + _FRAME_SHARE * strength * noise.to(frames.device)


def weaken_latents(
    low_quality: Tensor, strength: float, *, way: str, seed: int, source_indices: Sequence[int], vae: VaeSpec
) -> Tensor:
    """Take the low-quality latents of a window some of the way to noise; at one strength a larger window goes further.

    Args:
        low_quality: (L, h, w, C) scaled latents.
        strength: from 0, which changes nothing, to 1, which leaves noise.
        way: to draw noise; one of NOISES.
        seed: of the job.
        source_indices: for each latent, of the last frame that it codes.
        vae: says how many frames and pixels a latent stands for.
    """
    if strength == 0:
        return low_quality
    time, height, width, _ = low_quality.shape
    shift = resolution_shift((time, height, width), spatial_factor=vae.spatial_factor, temporal_factor=vae.temporal_factor)
    noise = noise_of(way, seed, source_indices, low_quality.shape[1:], purpose=_LATENTS).to(low_quality.device)
    return noise_low_quality(low_quality.float(), noise, shift_timestep(TIMESTEPS * strength, shift))
