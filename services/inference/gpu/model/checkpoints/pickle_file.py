"""PyTorch archives (``.pth``, ``.pt``): a zip of a restricted pickle and the tensors it names.

Only ``weights_only`` loading is ever used, so nothing in a file is run. The archive is mapped: what was read counts as
resident memory, but the pages are the file's own, and the kernel takes them back when others need them.
"""

import pickle
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints.checkpoint import NAMES, PIECE_ELEMENTS, Checkpoint
from services.inference.gpu.model.checkpoints.keys import by_current_key
from services.inference.gpu.model.spec import TEXT_KEY

_CODE = re.compile(r"GLOBAL ([\w.]+)")
_RECORD = re.compile(r"/data/\d+$")


class PickleCheckpoint(Checkpoint):
    """A mapped archive."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        shapes = {key: tuple(tensor.shape) for key, tensor in tensors.items()}
        super().__init__(path, "pth", shapes, {key: NAMES[tensor.dtype] for key, tensor in tensors.items()})
        self._tensors = dict(tensors)

    def pieces(self, key: str) -> Iterator[Tensor]:
        flat = self._tensors[key].reshape(-1)
        for first in range(0, flat.numel(), PIECE_ELEMENTS):
            yield flat[first : first + PIECE_ELEMENTS]

    def close(self) -> None:
        self._tensors.clear()


def open_pickle(path: Path) -> PickleCheckpoint:
    """Open a PyTorch archive that holds a flat table of tensors, or one bare tensor, as the text embedding is published.

    Raises:
        ModelBroken: damaged, with code in it, or with anything but named tensors.
    """
    loaded, stored_bytes = _load(path)
    if isinstance(loaded, Tensor):
        loaded = {TEXT_KEY: loaded}
    if not isinstance(loaded, dict):
        raise ModelBroken(f"{path} holds a {type(loaded).__name__}, not a table of tensors; use the model's state dict.")
    tensors = by_current_key(path, [_tensor(path, key, value) for key, value in loaded.items()])
    _check_records(path, tensors, stored_bytes)
    return PickleCheckpoint(path, tensors)


def _load(path: Path) -> tuple[Any, int]:
    try:
        with path.open("rb") as file, zipfile.ZipFile(file) as archive:
            stored_bytes = sum(record.file_size for record in archive.infolist() if _RECORD.search(record.filename))
            # Mapping needs a path, but PyTorch takes a path that ends in .safetensors for another kind of file.
            nameless = f"/dev/fd/{file.fileno()}"
            return torch.load(nameless, map_location="cpu", weights_only=True, mmap=True), stored_bytes
    except pickle.UnpicklingError as error:
        code = _CODE.search(str(error))
        what = f"code ({code[1]})" if code else "more than plain tensors"
        raise ModelBroken(
            f"{path} is a pickle that holds {what}; loading it could run anything, so it is refused. "
            "Use a safetensors file of the model."
        ) from error
    except Exception as error:  # a damaged archive shows as almost any error
        raise ModelBroken(f"{path} is cut off, damaged or no PyTorch archive; download it again.") from error


def _tensor(path: Path, key: Any, value: Any) -> tuple[str, Tensor]:
    if not isinstance(key, str) or not isinstance(value, Tensor):
        raise ModelBroken(
            f"{path} is not a flat table of tensors: {key!r} is a {type(value).__name__}; save the state dict alone."
        )
    if value.dtype not in NAMES or value.layout is not torch.strided:
        raise ModelBroken(f"{path} stores {key} as {value.dtype}, {value.layout}; save it as plain floating-point numbers.")
    return key, value.detach()


def _check_records(path: Path, tensors: Mapping[str, Tensor], stored_bytes: int) -> None:
    """A mapped record isn't checked by PyTorch: a short one would run on into the next."""
    storages = {storage.data_ptr(): storage.nbytes() for storage in (tensor.untyped_storage() for tensor in tensors.values())}
    needed_bytes = sum(storages.values())
    if stored_bytes != needed_bytes:
        raise ModelBroken(
            f"{path} is damaged: its tensors take {needed_bytes} bytes, and it has {stored_bytes}; download it again."
        )
