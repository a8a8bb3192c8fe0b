"""Makes checkpoint files of every kind from small tables of tensors."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from gguf.quants import quantize
from safetensors.torch import save_file
from torch import Tensor, nn

CPU = torch.device("cpu")

MakeBlock = Callable[[int], tuple[bytes, list[float]]]
"""From a seed a block of bytes and the numbers that it stands for."""


class Rope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rope = nn.Module()
        self.rope.register_buffer("freqs", torch.empty(10))


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj_qkv = nn.Linear(256, 96, bias=False)
        self.proj_out = nn.Linear(256, 32)
        self.rope = Rope()


class Modulation(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn_scale = nn.Parameter(torch.empty(32))
        self.attn_shift = nn.Parameter(torch.empty(32))


class TinyBlock(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.attn = Attention()
        self.ada = Modulation()


class TinyModel(nn.Module):
    """Named like the transformer, a block of it in size; its weights have no memory."""

    def __init__(self) -> None:
        super().__init__()
        with torch.device("meta"):
            self.vid_in = nn.Linear(12, 32)
            self.blocks = nn.ModuleList([TinyBlock()])


def weights(seed: int = 0) -> dict[str, Tensor]:
    """fp32 values for every key of a ``TinyModel``."""
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(tensor.shape, generator=generator) for key, tensor in TinyModel().state_dict().items()}


def cast(tensors: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    return {key: tensor.to(dtype) for key, tensor in tensors.items()}


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> Path:
    save_file(dict(tensors), path)
    return path


def write_header(path: Path, header: object, data: bytes = b"") -> Path:
    """A safetensors file with any header at all."""
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes(len(raw).to_bytes(8, "little") + raw + data)
    return path


def write_pth(path: Path, content: object) -> Path:
    torch.save(content, path)
    return path


def write_gguf(
    path: Path,
    tensors: Mapping[str, Tensor],
    *,
    quantised: Mapping[str, tuple[GGMLQuantizationType, bytes]] | None = None,
    shapes: Mapping[str, tuple[int, ...]] | None = None,
) -> Path:
    """Tensors are written as they are, ``quantised`` ones (rows of 256) from their raw blocks; ``shapes`` go to the metadata."""
    writer = GGUFWriter(path, "seedvr2")
    for name, shape in (shapes or {}).items():
        writer.add_array(f"comfy.gguf.orig_shape.{name}", list(shape))
    for name, tensor in tensors.items():
        if tensor.dtype is torch.bfloat16:
            raw = tensor.view(torch.uint8).numpy()
            writer.add_tensor(name, raw, raw_dtype=GGMLQuantizationType.BF16)
        else:
            writer.add_tensor(name, tensor.numpy())
    for name, (kind, blocks) in (quantised or {}).items():
        row_bytes = {GGMLQuantizationType.Q8_0: 8 * 34, GGMLQuantizationType.Q4_K: 144, GGMLQuantizationType.Q6_K: 210}[kind]
        writer.add_tensor(name, np.frombuffer(blocks, np.uint8).reshape(-1, row_bytes), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def q8_0(tensor: Tensor) -> bytes:
    return quantize(tensor.numpy(), GGMLQuantizationType.Q8_0).tobytes()


def q4_k_block(seed: int, largest: float = 0.01) -> tuple[bytes, list[float]]:
    """144 bytes, and the 256 numbers that they stand for: d · scale · q - dmin · min."""
    rng = np.random.default_rng(seed)
    d, dmin = (float(np.float16(value)) for value in rng.uniform(largest / 10, largest, 2))
    scales, mins = rng.integers(0, 64, 8).tolist(), rng.integers(0, 64, 8).tolist()
    q = rng.integers(0, 16, 256).tolist()
    packed = [scales[j] | scales[j + 4] >> 4 << 6 for j in range(4)]
    packed += [mins[j] | mins[j + 4] >> 4 << 6 for j in range(4)]
    packed += [scales[j + 4] & 15 | (mins[j + 4] & 15) << 4 for j in range(4)]
    nibbles = [q[64 * part + i] | q[64 * part + 32 + i] << 4 for part in range(4) for i in range(32)]
    block = np.array([d, dmin], np.float16).tobytes() + bytes(packed) + bytes(nibbles)
    return block, [d * scales[i // 32] * q[i] - dmin * mins[i // 32] for i in range(256)]


def q6_k_block(seed: int, largest: float = 0.01) -> tuple[bytes, list[float]]:
    """210 bytes, and the 256 numbers that they stand for: d · scale · (q - 32)."""
    rng = np.random.default_rng(seed)
    d = float(np.float16(rng.uniform(largest / 10, largest)))
    scales, q = rng.integers(-128, 128, 16).tolist(), rng.integers(0, 64, 256).tolist()
    low, high = [], []
    for half in (q[:128], q[128:]):
        low += [half[i] & 15 | (half[i + 64] & 15) << 4 for i in range(64)]
        high += [sum((half[i + 32 * part] >> 4) << 2 * part for part in range(4)) for i in range(32)]
    block = bytes(low) + bytes(high) + np.array(scales, np.int8).tobytes() + np.float16(d).tobytes()
    return block, [d * scales[i // 16] * (q[i] - 32) for i in range(256)]
