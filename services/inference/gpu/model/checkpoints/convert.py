"""Any checkpoint to one that loads without arithmetic: bf16 safetensors.

Vectors (modulation, norms, biases) stay fp32: they are less than a thousandth of the file, some are used in fp32, and one
that was rounded here could not be had back.
"""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import torch

from services.common.durable import replaced_when_done
from services.inference.gpu.model.checkpoints.checkpoint import Checkpoint, Shape
from services.inference.gpu.model.checkpoints.detect import open_checkpoint
from services.inference.gpu.model.checkpoints.safetensors_file import CONVERTED_FROM, LENGTH_BYTES

_ALIGNMENT = 8
_NAMES = {torch.bfloat16: "BF16", torch.float32: "F32"}


OnBytes = Callable[[int, int], None]
"""Called with the bytes written and the bytes in all."""


def convert_to_bf16(source: Path, destination: Path, on_bytes: OnBytes = lambda done, total: None) -> None:
    """Write a checkpoint anew as bf16 safetensors, with vectors in fp32, piece by piece.

    Host memory is that of a piece, whatever the size of the file. The destination appears whole or not at all, and an old one
    is replaced only then; the same source gives the same bytes.

    Raises:
        ModelBroken: the source can't be used.
        OSError: the destination can't be written.
    """
    with open_checkpoint(source) as checkpoint, replaced_when_done(destination) as file:
        header = _header(checkpoint)
        file.write(len(header).to_bytes(LENGTH_BYTES, "little") + header)
        _write_tensors(checkpoint, file, on_bytes)


def _kept_type(shape: Shape) -> torch.dtype:
    return torch.bfloat16 if len(shape) > 1 else torch.float32


def _size_bytes(shape: Shape) -> int:
    return math.prod(shape) * _kept_type(shape).itemsize


def _keys(checkpoint: Checkpoint) -> list[str]:
    """fp32 first, so that everything is aligned for readers that map the file."""
    return sorted(checkpoint.keys, key=lambda key: len(checkpoint.shapes[key]) > 1)


def _header(checkpoint: Checkpoint) -> bytes:
    entries: dict[str, object] = {"__metadata__": {"format": "pt", CONVERTED_FROM: checkpoint.format}}
    first = 0
    for key in _keys(checkpoint):
        shape = checkpoint.shapes[key]
        end = first + _size_bytes(shape)
        entries[key] = {"dtype": _NAMES[_kept_type(shape)], "shape": shape, "data_offsets": (first, end)}
        first = end
    header = json.dumps(entries, separators=(",", ":")).encode()
    return header + b" " * (-len(header) % _ALIGNMENT)


def _write_tensors(checkpoint: Checkpoint, file: BinaryIO, on_bytes: OnBytes) -> None:
    done, total = 0, sum(_size_bytes(shape) for shape in checkpoint.shapes.values())
    for key in _keys(checkpoint):
        kept = _kept_type(checkpoint.shapes[key])
        for piece in checkpoint.pieces(key):
            rounded = piece.to(kept)
            checkpoint.check_finite(key, rounded)
            done += file.write(rounded.view(torch.uint8).numpy().data)
            on_bytes(done, total)
