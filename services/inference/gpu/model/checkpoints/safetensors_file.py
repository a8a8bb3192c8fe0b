"""safetensors: eight bytes of header length, a JSON header with the place of every tensor, then the tensors."""

import json
from pathlib import Path
from typing import Any

import torch

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints.checkpoint import Stored, TableCheckpoint, plain
from services.inference.gpu.model.checkpoints.keys import by_current_key

LENGTH_BYTES = 8
CONVERTED_FROM = "converted_from"
"""In the metadata of a file that was converted here: the format of the one that it was made from."""
_MAX_HEADER_BYTES = 100_000_000
_ENCODINGS = {
    "F32": plain(torch.float32),
    "F16": plain(torch.float16),
    "BF16": plain(torch.bfloat16),
    "F8_E4M3": plain(torch.float8_e4m3fn),
}


def open_safetensors(path: Path) -> TableCheckpoint:
    """Open a safetensors file.

    Raises:
        ModelBroken: cut off, damaged, or with numbers of another type.
    """
    header, start = _read_header(path)
    table = {key: _stored(path, key, entry, start) for key, entry in header.items() if key != "__metadata__"}
    _check_length(path, table)
    ordered = by_current_key(path, sorted(table.items(), key=lambda item: item[1].offset))
    return TableCheckpoint(path, "safetensors", ordered, made_from=_made_from(header))


def _read_header(path: Path) -> tuple[dict[str, Any], int]:
    with path.open("rb") as file:
        length = int.from_bytes(file.read(LENGTH_BYTES), "little")
        if length > _MAX_HEADER_BYTES:
            raise ModelBroken(f"{path} is no checkpoint: its header would be {length} bytes long; download it again.")
        raw = file.read(length)
    if len(raw) < length:
        raise ModelBroken(f"{path} is cut off: it ends within its header; download it again.")
    try:
        header = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise ModelBroken(f"{path} is damaged: its header is not valid JSON; download it again.") from error
    return header, LENGTH_BYTES + length


def _made_from(header: dict[str, Any]) -> str:
    metadata = header.get("__metadata__")
    return str(metadata.get(CONVERTED_FROM, "")) if isinstance(metadata, dict) else ""


def _stored(path: Path, key: str, entry: Any, start: int) -> Stored:
    try:
        kind, shape, (first, end) = entry["dtype"], tuple(map(_count, entry["shape"])), map(_count, entry["data_offsets"])
    except (KeyError, TypeError, ValueError) as error:
        raise ModelBroken(f"{path} is damaged: its header says nonsense about {key}; download it again.") from error
    if kind not in _ENCODINGS:
        raise ModelBroken(f"{path} stores {key} as {kind}; supported are {', '.join(_ENCODINGS)}: use another file of the model.")
    stored = Stored(shape=shape, encoding=_ENCODINGS[kind], offset=start + first)
    if stored.size_bytes != end - first:
        raise ModelBroken(
            f"{path} is damaged: {key} has {end - first} bytes, which is not what its shape takes; download it again."
        )
    return stored


def _count(value: Any) -> int:
    if not isinstance(value, int) or not 0 <= value < 2**63:
        raise ValueError(f"{value!r} is not a count")
    return value


def _check_length(path: Path, table: dict[str, Stored]) -> None:
    needed_bytes = max((stored.offset + stored.size_bytes for stored in table.values()), default=0)
    found_bytes = path.stat().st_size
    if found_bytes < needed_bytes:
        raise ModelBroken(f"{path} is cut off: it has {found_bytes} of {needed_bytes} bytes; download it again.")
