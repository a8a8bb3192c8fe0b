"""Which kind of checkpoint a file is, by its first bytes."""

from collections.abc import Callable
from pathlib import Path

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints.checkpoint import Checkpoint
from services.inference.gpu.model.checkpoints.pickle_file import open_pickle
from services.inference.gpu.model.checkpoints.safetensors_file import open_safetensors


def _open_gguf(path: Path) -> Checkpoint:
    # Imported here, because its package is large and no other file needs it.
    from services.inference.gpu.model.checkpoints.gguf_file import open_gguf

    return open_gguf(path)


_OPENERS: tuple[tuple[int, bytes, Callable[[Path], Checkpoint]], ...] = (
    (0, b"GGUF", _open_gguf),
    (0, b"PK\x03\x04", open_pickle),
    (8, b"{", open_safetensors),
)
"""Offset, the bytes there, and what opens such a file."""

_STRANGERS = (
    (
        b"\x80",
        "is a bare pickle or a file of PyTorch before 1.6, which can't be read safely; save it anew with a current PyTorch",
    ),
    (b"version https://git-lfs", "is a Git LFS pointer, not the file itself; fetch the file with `git lfs pull`"),
    (b"<", "is a web page, not a checkpoint; download the file itself"),
)
"""First bytes of files that are often found in a checkpoint's place, and what to say."""


def open_checkpoint(path: Path) -> Checkpoint:
    """Open a checkpoint of any supported kind; close it, best with ``with``.

    Raises:
        ModelBroken: it is missing, empty, damaged, or of a kind that can't be used.
    """
    try:
        with path.open("rb") as file:
            start = file.read(64)
        return _opener(path, start)(path)
    except OSError as error:
        raise ModelBroken(f"{path} can't be read: {error.strerror}; check the path and download the model again.") from error


def _opener(path: Path, start: bytes) -> Callable[[Path], Checkpoint]:
    if not start:
        raise ModelBroken(f"{path} is empty; download it again.")
    for offset, magic, opener in _OPENERS:
        if start[offset:].startswith(magic):
            return opener
    for magic, words in _STRANGERS:
        if start.lstrip().startswith(magic):
            raise ModelBroken(f"{path} {words}.")
    raise ModelBroken(f"{path} is no checkpoint that is known here (safetensors, GGUF or a PyTorch archive); download it again.")
