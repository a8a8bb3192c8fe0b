"""The same numbers on a GPU: in fp32, and in bf16 against the reference's fp32, on the plain and on the fast path."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bench.parity import dit, vae
from bench.parity.measure import Folder, Pair, Row, Tolerance, compare, thinned
from services.inference.gpu.model.dit import Clip, Dit
from services.inference.gpu.model.kernels import Kernels, choose_kernels
from services.inference.gpu.model.vae import Vae, VaeState
from tests.unit.inference.gpu.goldens import tiny_dit, tiny_vae

_FP32 = {"dit": Tolerance(atol=2e-5, rtol=1e-4), "vae": Tolerance(atol=2e-4)}
_HALF = Tolerance(relative=2e-2)


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a case is computed."""

    dtype: torch.dtype
    """Compute type."""

    kernels: Kernels
    """Plain or fast, on the device."""

    device: torch.device
    """Where."""

    @property
    def name(self) -> str:
        """For the table."""
        return f"{'fast' if self.kernels.fused else 'plain'} {str(self.dtype).removeprefix('torch.')}"

    def tolerance(self, what: str) -> Tolerance:
        """How far it may be from the reference."""
        return _FP32[what] if self.dtype == torch.float32 else _HALF


def ways(device: torch.device) -> list[Way]:
    """All ways that this device knows."""
    found = []
    for dtype in (torch.float32, torch.bfloat16):
        for fused in (False, None):
            kernels = choose_kernels(device, dtype, fused=fused)
            if fused is False or kernels.fused:
                found.append(Way(dtype=dtype, kernels=kernels, device=device))
    return found


def rows(folder: Folder, device: torch.device) -> Iterator[Row]:
    """All cases of the transformer's or the autoencoder's folder; none of another one."""
    torch.backends.cudnn.allow_tf32 = False
    for way in ways(device):
        if folder.has(dit.MARK):
            yield from _velocities(folder, way)
        elif folder.has(vae.MARK):
            yield from _autoencoder(folder, way)


def _velocities(folder: Folder, way: Way) -> Iterator[Row]:
    for rules in ("3b", "7b"):
        model: Dit = tiny_dit(rules, way.kernels, folder.path).to(way.device, way.dtype)
        for case in ("image", "video5", "wide"):
            clip = dit.clip_of(folder, case)
            inputs = Clip(clip.x.to(way.device, way.dtype), clip.text.to(way.device, way.dtype), clip.timestep.to(way.device))
            expected = folder.tensors(f"tiny_{rules}_{case}")["v"]
            velocity = thinned(model(*inputs).cpu(), expected)
            yield compare(f"{way.name}: tiny {rules} {case}", [Pair(velocity, expected)], way.tolerance("dit"))


def _autoencoder(folder: Folder, way: Way) -> Iterator[Row]:
    model: Vae = tiny_vae(folder.path, kernels=way.kernels).to(way.device, way.dtype)
    golden = folder.tensors("encode_decode")
    for stem, given, wanted, apply in (("enc.", "x", "moments", _moments), ("dec.", "z", "y", _frames)):
        keys = [key.removesuffix(f".{given}") for key in golden if key.startswith(f"{stem}b1") and key.endswith(f".{given}")]
        pairs = [Pair(apply(model, golden[f"{key}.{given}"], way), golden[f"{key}.{wanted}"]) for key in keys]
        yield compare(f"{way.name}: tiny autoencoder, {len(keys)} of {stem}", pairs, way.tolerance("vae"))


def _moments(model: Vae, x: Tensor, way: Way) -> Tensor:
    """(1, 3, T, H, W) to (1, C, L, h, w) on the CPU."""
    frames = x[0].transpose(0, 1).to(way.device, way.dtype)
    return model.moments(frames, VaeState()).cpu().float().transpose(0, 1)[None]


def _frames(model: Vae, z: Tensor, way: Way) -> Tensor:
    """(1, C, L, h, w) to (1, 3, T, H, W) on the CPU."""
    latents = z[0].permute(1, 2, 3, 0).to(way.device) * model.spec.scaling_factor
    return model.decode(latents, VaeState()).cpu().float().transpose(0, 1)[None]
