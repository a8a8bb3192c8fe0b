"""The names of tensors: spellings that are accepted, and names that give away a file that can't be used."""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from services.common.errors import ModelBroken

LEGACY_KEYS = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}
"""How older files of the autoencoder spell its attention, and how the model does."""

_LEGACY = re.compile(r"(?<=\.attentions\.)(\d+)\.(query|key|value|proj_attn)(?=\.(?:weight|bias)$)")
_SCALE = re.compile(
    r"(?:^|\.)(?:scaled_fp8|comfy_quant|scales?|scale_\w+|(?:weight|input|output)_scales?(?:_\w+)?|\w+_scale_inv)$"
)

T = TypeVar("T")


def current_key(key: str) -> str:
    """The model's spelling of a key that a file may spell in an older way."""
    return _LEGACY.sub(lambda match: f"{match[1]}.{LEGACY_KEYS[match[2]]}", key)


def by_current_key(path: Path, named: Iterable[tuple[str, T]]) -> dict[str, T]:
    """What a file holds, by the model's names and in the file's order.

    Raises:
        ModelBroken: the file is without tensors, has one twice, or has scales.
    """
    found: dict[str, T] = {}
    for name, value in named:
        key = current_key(name)
        if key in found:
            raise ModelBroken(f"{path} holds {key} twice; download it again.")
        found[key] = value
    if not found:
        raise ModelBroken(f"{path} holds no tensors; download it again.")
    _refuse_scales(path, found)
    return found


def _refuse_scales(path: Path, keys: Iterable[str]) -> None:
    scales = [key for key in keys if _SCALE.search(key)]
    if scales:
        raise ModelBroken(
            f"{path} keeps scales beside its weights ({few(scales)}): scaled fp8 and similar formats are not supported, and "
            "without the scales the weights would be wrong. Use a file with plain fp16, bf16 or fp8 weights, or GGUF."
        )


def few(items: Iterable[str], most: int = 3) -> str:
    """The first few, and how many more there are: ``a, b, c and 4 more``."""
    listed = list(items)
    rest = f" and {len(listed) - most} more" if len(listed) > most else ""
    return ", ".join(listed[:most]) + rest
