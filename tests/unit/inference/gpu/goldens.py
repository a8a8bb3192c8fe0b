"""Numbers to compare with, and small models to compute them with."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file
from torch import Tensor, nn

from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.kernels import Kernels, choose_kernels
from services.inference.gpu.model.spec import SPECS, DitSpec, ModelSpec, VaeSpec
from services.inference.gpu.model.vae import Vae
from services.inference.gpu.model.weights import Model, load_model
from services.inference.gpu.parallel.mesh import Mesh

GOLDENS = Path(__file__).parents[3] / "goldens"
NANO = Path(__file__).parents[4] / "models" / "nano"
CPU = torch.device("cpu")
KERNELS = choose_kernels(CPU, torch.float32)

TINY_DIT = DitSpec(
    width=64, heads=2, blocks=4, split_blocks=2, mlp_width=256, window_counts=(4, 3, 3), output_norm=True, rope_width=32,
    text_width=40,
)  # fmt: skip
TINY_7B = DitSpec(
    width=96, heads=2, blocks=4, split_blocks=4, mlp_width=384, window_counts=(4, 3, 3), output_norm=False, rope_width=24,
    text_width=40, gated_mlp=False, pixel_rotary=True, bare_last_text=False,
)  # fmt: skip
TINY_DITS = {"3b": TINY_DIT, "7b": TINY_7B}
"""The small transformers that the goldens were made with, by whose rules they follow."""
TINY_VAE = VaeSpec(
    channels=(8, 12, 16, 16), blocks_per_level=2, latent_channels=4, norm_groups=4, temporal_levels=2, causal_first_conv=True,
    mid_attention=True, scaling_factor=0.9152,
)  # fmt: skip


def tensors(name: str, folder: Path = GOLDENS) -> dict[str, Tensor]:
    """A file of goldens; half-precision tensors, which only save space, become fp32."""
    found = load_file(folder / f"{name}.safetensors")
    return {key: value.float() if value.is_floating_point() else value for key, value in found.items()}


def table(name: str, folder: Path = GOLDENS) -> Any:
    """A JSON file of goldens."""
    return json.loads((folder / f"{name}.json").read_text())


def tiny_dit(rules: str = "3b", kernels: Kernels = KERNELS, folder: Path = GOLDENS / "dit", mesh: Mesh | None = None) -> Dit:
    """One of the small transformers that the goldens were made with."""
    dit = Dit(TINY_DITS[rules], kernels, mesh).requires_grad_(False)
    dit.load_state_dict(tensors(f"tiny_{rules}_weights", folder))
    return dit


def tiny_vae(folder: Path = GOLDENS / "vae", mesh: Mesh | None = None, kernels: Kernels = KERNELS) -> Vae:
    """The small autoencoder that the goldens were made with."""
    vae = Vae(TINY_VAE, kernels, mesh).requires_grad_(False)
    vae.load_state_dict(tensors("tiny_vae", folder))
    return vae


def full_vae() -> Vae:
    """The released autoencoder's structure at its real size, 1 GB, with weights from a formula."""
    with torch.device("meta"):
        vae = Vae(SPECS["seedvr2-3b"].vae, KERNELS).requires_grad_(False)
    shapes = {key: value.shape for key, value in vae.state_dict().items()}
    vae.load_state_dict({key: _formula(key, i, shapes[key]) for i, key in enumerate(sorted(shapes))}, assign=True)
    return vae


def _formula(key: str, index: int, shape: torch.Size) -> Tensor:
    u = torch.from_numpy(_hashes(index, shape.numel())).view(shape)
    if "norm" in key:
        return u.mul_(0.3).add_(1.0 if key.endswith("weight") else 0.0)
    return u.mul_(0.2) if key.endswith("bias") else u.mul_(3**0.5 * 1.2 / shape[1:].numel() ** 0.5)


def _hashes(index: int, count: int, step: int = 1 << 16) -> NDArray[np.float32]:
    """Numbers in [-1, 1) that look random; in pieces that fit a cache."""
    u = np.empty(count, np.float32)
    for first in range(0, count, step):
        x = np.arange(first, min(first + step, count), dtype=np.uint32) * np.uint32(2654435761)
        x += np.uint32(40503 * index + 12345)
        x ^= x >> np.uint32(16)
        x *= np.uint32(2246822519)
        x ^= x >> np.uint32(13)
        x *= np.uint32(3266489917)
        x ^= x >> np.uint32(16)
        u[first : first + step] = x * 2.0**-31 - 1.0
    return u


def nano(mesh: Mesh | None = None) -> Model:
    """The embedded model."""
    return load_model(SPECS["nano"], NANO, CPU, torch.float32, mesh)


def random_model(*, temporal_factor: int) -> Model:
    """A very small model of random weights; latents code 1 or 4 frames."""
    temporal_levels = {1: 0, 4: 2}[temporal_factor]
    spec = ModelSpec(
        name=f"random-{temporal_factor}",
        dit=DitSpec(
            width=32, heads=2, blocks=2, split_blocks=1, mlp_width=64, window_counts=(4, 3, 3), output_norm=True, rope_width=16,
            text_width=8, latent_channels=4,
        ),
        vae=VaeSpec(
            channels=(4, 8, 8), blocks_per_level=1, latent_channels=4, norm_groups=2, temporal_levels=temporal_levels,
            causal_first_conv=False, mid_attention=True, scaling_factor=0.9152,
        ),
        text_tokens=3,
        window_latents=4,
        overlap_latents=1,
        context_frames=temporal_factor,
        slice_latents=2,
    )  # fmt: skip
    torch.manual_seed(temporal_factor)
    dit, vae = Dit(spec.dit, KERNELS), Vae(spec.vae, KERNELS)
    for module in (dit, vae):
        _randomise(module)
    text = torch.randn(spec.text_tokens, spec.dit.text_width)
    return Model(
        spec=spec, dit=dit, vae=vae, text=text, device=CPU, dtype=torch.float32, kernels=KERNELS.report, sha256={"dit": "random"}
    )


def _randomise(module: nn.Module) -> None:
    for key, value in module.requires_grad_(False).named_parameters():
        if key.endswith("weight") and value.ndim > 1:
            value.copy_(torch.randn_like(value) / value[0].numel() ** 0.5)
        else:
            centre = 1.0 if "scale" in key or "norm" in key else 0.0
            value.copy_(centre + 0.2 * torch.randn_like(value))
