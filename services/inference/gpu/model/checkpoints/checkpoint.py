"""What all checkpoint files have in common: named tensors that are read one at a time, in bounded memory."""

import math
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from torch import Tensor

from services.common.errors import ModelBroken

PIECE_ELEMENTS = 1 << 20
"""Elements that are decoded at a time; a multiple of every block size."""

Shape = tuple[int, ...]


class Checkpoint(ABC):
    """An open file of named tensors; a context manager.

    Keys are the model's own names, whatever spelling the file has, in the order in which the file stores them.
    """

    def __init__(
        self, path: Path, container: str, shapes: Mapping[str, Shape], encodings: Mapping[str, str], made_from: str = ""
    ) -> None:
        self.path = path
        self.shapes = dict(shapes)
        """Of every tensor, by key."""
        self.format = f"{container}-{_most_common(self.shapes, encodings)}" + (f" from {made_from}" if made_from else "")
        """Container, then the encoding of most elements, and what a converted file was made from: ``gguf-q8_0``,
        ``safetensors-bf16 from pth-f32``."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Of all tensors."""
        return tuple(self.shapes)

    def read(self, key: str, *, device: torch.device, dtype: torch.dtype) -> Tensor:
        """One tensor, decoded and rounded once.

        Nothing but the result is ever allocated in full, neither on the host nor on the device.

        Raises:
            ModelBroken: a number is not finite, the file changed, or it can't be read any more.
        """
        result = torch.empty(self.shapes[key], device=device, dtype=dtype)
        flat, filled = result.view(-1), 0
        for piece in self.pieces(key):
            # The narrow type travels; the device widens it.
            flat[filled : filled + piece.numel()].copy_(piece.to(device))
            filled += piece.numel()
        self.check_finite(key, result)
        return result

    def check_finite(self, key: str, values: Tensor) -> None:
        """Refuse NaN and infinity: they come from damage, or from a type too narrow for the number.

        Raises:
            ModelBroken: there are such ``values``, of the tensor with this key.
        """
        # A sum is cheap and shows them all; it can overflow by itself, so it doesn't decide alone.
        if not values.sum().isfinite() and not values.isfinite().all():
            raise ModelBroken(
                f"{self.path} holds NaN or infinite numbers in {key}, or some that {NAMES[values.dtype]} can't hold; "
                "download it again, or use another file of the model."
            )

    @abstractmethod
    def pieces(self, key: str) -> Iterator[Tensor]:
        """A tensor's elements in order: (n,) on the CPU in a floating type, each valid until the next is asked for.

        Raises:
            ModelBroken: the file changed or can't be read any more.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of the file; tensors that were read stay valid."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


def _most_common(shapes: Mapping[str, Shape], encodings: Mapping[str, str]) -> str:
    elements: Counter[str] = Counter()
    for key, shape in shapes.items():
        elements[encodings[key]] += math.prod(shape)
    return elements.most_common(1)[0][0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Encoding:
    """How numbers are written in a file."""

    name: str
    """In lower case: ``f16``, ``q4_k``."""

    block: int
    """Elements that are coded together."""

    block_bytes: int
    """What such a block takes."""

    decode: Callable[[Tensor], Tensor]
    """(bytes,) uint8 of whole blocks to (elements,) of a floating type."""


def plain(dtype: torch.dtype) -> Encoding:
    """One element after the other, as the processor has them (little-endian)."""
    return Encoding(name=NAMES[dtype], block=1, block_bytes=dtype.itemsize, decode=lambda raw: raw.view(dtype))


NAMES = {torch.float32: "f32", torch.float16: "f16", torch.bfloat16: "bf16", torch.float8_e4m3fn: "f8e4m3"}
"""The types that weights may be stored in, and what ``Checkpoint.format`` calls them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """Where a tensor lies in a file, and how."""

    shape: Shape
    """As the model has it."""

    encoding: Encoding
    """How its bytes become numbers."""

    offset: int
    """Of its first byte in the file."""

    @property
    def size_bytes(self) -> int:
        """What it takes in the file."""
        return math.prod(self.shape) // self.encoding.block * self.encoding.block_bytes


class TableCheckpoint(Checkpoint):
    """A file whose tensors lie at known offsets.

    It is read, not mapped: pages of a mapping would count as the process's memory, and a file that shrinks under a mapping
    kills the process where a read merely fails.
    """

    def __init__(self, path: Path, container: str, table: Mapping[str, Stored], made_from: str = "") -> None:
        shapes = {key: stored.shape for key, stored in table.items()}
        super().__init__(path, container, shapes, {key: stored.encoding.name for key, stored in table.items()}, made_from)
        self._table = dict(table)
        self._file = path.open("rb", buffering=0)

    def pieces(self, key: str) -> Iterator[Tensor]:
        stored = self._table[key]
        step_bytes = PIECE_ELEMENTS // stored.encoding.block * stored.encoding.block_bytes
        buffer = torch.empty(min(step_bytes, stored.size_bytes), dtype=torch.uint8)
        for first in range(0, stored.size_bytes, step_bytes):
            raw = buffer[: stored.size_bytes - first]
            self._read_into(raw, stored.offset + first, key)
            yield stored.encoding.decode(raw)

    def _read_into(self, raw: Tensor, offset: int, key: str) -> None:
        left = raw.numpy().data
        try:
            self._file.seek(offset)
            while left:
                count = self._file.readinto(left)
                if not count:
                    raise ModelBroken(f"{self.path} became shorter while {key} was read; download it again.")
                left = left[count:]
        except OSError as error:
            raise ModelBroken(f"{self.path} could not be read at {key}: {error.strerror}; check its disk.") from error

    def close(self) -> None:
        self._file.close()
