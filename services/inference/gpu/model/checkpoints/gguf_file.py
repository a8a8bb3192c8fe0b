"""GGUF: tensors of the transformer, most of them quantised in blocks."""

import math
from collections.abc import Iterator
from pathlib import Path

import torch
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, GGUFEndian, GGUFReader, GGUFValueType, ReaderTensor
from gguf.quants import dequantize
from torch import Tensor

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints.checkpoint import Encoding, Shape, Stored, TableCheckpoint, plain
from services.inference.gpu.model.checkpoints.keys import by_current_key

_PREFIX = "model.diffusion_model."
_SHAPE_FIELD = "comfy.gguf.orig_shape."


def _quantised(kind: GGMLQuantizationType) -> Encoding:
    block, block_bytes = GGML_QUANT_SIZES[kind]

    def decode(raw: Tensor) -> Tensor:
        # One row: the package decodes row by row, and blocks don't know where rows end.
        return torch.from_numpy(dequantize(raw.numpy().reshape(1, -1), kind)).view(-1)

    return Encoding(name=kind.name.lower(), block=block, block_bytes=block_bytes, decode=decode)


_ENCODINGS = {
    GGMLQuantizationType.F32: plain(torch.float32),
    GGMLQuantizationType.F16: plain(torch.float16),
    GGMLQuantizationType.BF16: plain(torch.bfloat16),
} | {kind: _quantised(kind) for kind in (GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K)}


def open_gguf(path: Path) -> TableCheckpoint:
    """Open a GGUF file.

    Raises:
        ModelBroken: cut off, damaged, or quantised in another way.
    """
    try:
        reader = GGUFReader(path)
    except Exception as error:  # the package checks little, so damage shows as almost any error
        raise ModelBroken(f"{path} is cut off or damaged: it is no whole GGUF file; download it again.") from error
    if reader.endianess is not GGUFEndian.LITTLE:
        raise ModelBroken(f"{path} was written for big-endian machines; use the usual little-endian file.")
    return TableCheckpoint(path, "gguf", by_current_key(path, _tensors(path, reader)))


def _tensors(path: Path, reader: GGUFReader) -> Iterator[tuple[str, Stored]]:
    for tensor in reader.tensors:
        encoding = _ENCODINGS.get(tensor.tensor_type)
        if encoding is None:
            raise ModelBroken(
                f"{path} stores {tensor.name} as {tensor.tensor_type.name}, which is not supported; use a Q8_0 or Q4_K_M file."
            )
        shape = _shape(path, reader, tensor)
        yield tensor.name.removeprefix(_PREFIX), Stored(shape=shape, encoding=encoding, offset=tensor.data_offset)


def _shape(path: Path, reader: GGUFReader, tensor: ReaderTensor) -> Shape:
    field = reader.get_field(_SHAPE_FIELD + tensor.name)
    if field is None:
        return tuple(reversed(tensor.shape.tolist()))
    shape = tuple(field.contents()) if field.types == [GGUFValueType.ARRAY, GGUFValueType.INT32] else ()
    if math.prod(shape) != tensor.n_elements or min(shape, default=-1) < 0:
        raise ModelBroken(f"{path} is damaged: it gives {tensor.name} a shape that doesn't fit; download it again.")
    return shape
