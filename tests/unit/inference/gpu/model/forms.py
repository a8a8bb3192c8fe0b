"""A small model set written in every form that models are published in."""

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from gguf import GGMLQuantizationType
from torch import Tensor

from services.inference.gpu.model.checkpoints import open_checkpoint
from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.kernels import choose_kernels
from services.inference.gpu.model.spec import DitSpec, ModelSpec, VaeSpec
from services.inference.gpu.model.vae import Vae
from tests.unit.inference.gpu.model.checkpoints import files

SPEC = ModelSpec(
    name="wide-rows",
    # Rows of 256, which quantised files need.
    dit=DitSpec(
        width=256, heads=8, blocks=2, split_blocks=1, mlp_width=256, window_counts=(4, 3, 3), output_norm=True, rope_width=32,
        text_width=8, latent_channels=4,
    ),
    vae=VaeSpec(
        channels=(4, 8), blocks_per_level=1, latent_channels=4, norm_groups=2, temporal_levels=0, causal_first_conv=True,
        mid_attention=True, scaling_factor=0.9152,
    ),
    text_tokens=3,
    window_latents=3,
    slice_latents=2,
    overlap_latents=0,
    context_frames=0,
)  # fmt: skip

Tensors = dict[str, Tensor]


def weights(part: type[Dit] | type[Vae]) -> Tensors:
    """Random fp32 values for every key of the transformer or the autoencoder, of the size that trained ones have."""
    with torch.device("meta"):
        kernels = choose_kernels(files.CPU, torch.float32)
        module = Dit(SPEC.dit, kernels) if part is Dit else Vae(SPEC.vae, kernels)
    generator = torch.Generator().manual_seed(len(part.__name__))
    return {key: _values(key, tensor.shape, generator) for key, tensor in module.state_dict().items()}


def text() -> Tensor:
    """The text embedding, as it is published in bf16."""
    return torch.randn(SPEC.text_tokens, SPEC.dit.text_width, generator=torch.Generator().manual_seed(5)).bfloat16()


def _values(key: str, shape: torch.Size, generator: torch.Generator) -> Tensor:
    drawn = torch.randn(shape, generator=generator)
    if len(shape) > 1:
        return drawn / drawn[0].numel() ** 0.5
    return 0.2 * drawn + (1.0 if "norm" in key and key.endswith("weight") else 0.0)


def _is_quantised(key: str, tensor: Tensor) -> bool:
    return key.startswith("blocks.") and tensor.ndim == 2


def _write_q8_0(path: Path, tensors: Tensors) -> Path:
    quantised = {key: (GGMLQuantizationType.Q8_0, files.q8_0(t)) for key, t in tensors.items() if _is_quantised(key, t)}
    return _write_gguf(path, tensors, quantised)


def _write_q4_k_m(path: Path, tensors: Tensors) -> Path:
    """Blocks of random numbers, every third matrix in Q6_K: what the weights are is what the file stands for."""
    quantised = {}
    for index, key in enumerate(key for key, tensor in tensors.items() if _is_quantised(key, tensor)):
        kind, make = (
            (GGMLQuantizationType.Q6_K, files.q6_k_block) if index % 3 == 2 else (GGMLQuantizationType.Q4_K, files.q4_k_block)
        )
        quantised[key] = (kind, b"".join(make(index + row, 0.002)[0] for row in range(len(tensors[key]))))
    return _write_gguf(path, tensors, quantised)


def _write_gguf(path: Path, tensors: Tensors, quantised: Mapping[str, tuple[GGMLQuantizationType, bytes]]) -> Path:
    plain = {key: tensor.half() for key, tensor in tensors.items() if key not in quantised}
    return files.write_gguf(path, plain, quantised=quantised)


def _mixed_fp8(tensors: Tensors) -> Tensors:
    last = f"blocks.{SPEC.dit.blocks - 1}."
    return {key: tensor.half() if key.startswith(last) else tensor.to(torch.float8_e4m3fn) for key, tensor in tensors.items()}


def _safetensors(dtype: torch.dtype) -> Callable[[Path, Tensors], Path]:
    return lambda path, tensors: files.write_safetensors(path, files.cast(tensors, dtype))


WRITERS: dict[str, Callable[[Path, Tensors], Path]] = {
    "safetensors-f32": _safetensors(torch.float32),
    "safetensors-f16": _safetensors(torch.float16),
    "safetensors-bf16": _safetensors(torch.bfloat16),
    "safetensors-f8e4m3": _safetensors(torch.float8_e4m3fn),
    "mixed fp8": lambda path, tensors: files.write_safetensors(path, _mixed_fp8(tensors)),
    "pth-f32": lambda path, tensors: files.write_pth(path, tensors),
    "gguf-q8_0": _write_q8_0,
    "gguf-q4_k": _write_q4_k_m,
}
"""From a form to what writes the transformer in it."""


def write_model(directory: Path, form: str) -> Path:
    """A directory with the model; the autoencoder as .pth beside a .pth, else as fp16 safetensors, as they are published."""
    directory.mkdir()
    WRITERS[form](directory / f"dit.{form.partition('-')[0].replace(' ', '_')}", weights(Dit))
    if form.startswith("pth"):
        files.write_pth(directory / "vae.pth", weights(Vae))
    else:
        files.write_safetensors(directory / "vae.safetensors", files.cast(weights(Vae), torch.float16))
    files.write_pth(directory / "pos_emb.pt", text())
    return directory


def decoded(directory: Path, source: Path) -> Path:
    """The same model with the numbers that its files stand for, all of them in fp32 safetensors."""
    directory.mkdir()
    for path in source.iterdir():
        with open_checkpoint(path) as checkpoint:
            tensors = {key: checkpoint.read(key, device=files.CPU, dtype=torch.float32) for key in checkpoint.keys}
        files.write_safetensors(directory / f"{path.stem}.safetensors", tensors)
    return directory
