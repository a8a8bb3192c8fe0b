"""What is compared, how far apart it is, and what of a folder nobody looked at."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tests.unit.inference.gpu.goldens import table, tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """How far apart is still the same."""

    atol: float = 0.0
    """For every element, absolute."""

    rtol: float = 0.0
    """For every element, added to ``atol`` in proportion to the expected value."""

    relative: float | None = None
    """Of the L2 norms of difference and expected values; None: each element is held to the two above."""

    outliers: float = 0.0
    """Share of the elements that may be further off, as where ranks or thresholds decide."""

    worst: float = float("inf")
    """As far as these may be."""


class Row(NamedTuple):
    """A line of the table."""

    case: str
    """What was computed."""

    tensors: int
    """How many were compared, or tables where there are no tensors."""

    largest: float
    """Difference of an element."""

    relative: float
    """L2 norm of all differences, by that of all expected values."""

    passed: bool
    """Whether it is within tolerance."""


class Pair(NamedTuple):
    """Two tensors that should be the same."""

    mine: Tensor
    """As this model gives it."""

    expected: Tensor
    """As the reference gave it."""


def compare(case: str, pairs: Sequence[Pair], tolerance: Tolerance) -> Row:
    """Measure a case. Another shape, or something that is no number, is infinitely far."""
    if not pairs or any(mine.shape != expected.shape for mine, expected in pairs):
        return Row(case, len(pairs), float("inf"), float("inf"), passed=False)
    mine, expected = (torch.cat([tensor.detach().double().flatten() for tensor in side]) for side in zip(*pairs, strict=True))
    difference = (mine - expected).abs().nan_to_num(float("inf"))
    relative = float(difference.norm() / expected.norm().clamp(min=torch.finfo(torch.float64).tiny))
    # Whatever is compared with something that is no number is far.
    far = ~(difference <= tolerance.atol + tolerance.rtol * expected.abs())
    close = float(far.double().mean()) <= tolerance.outliers and float(difference.max()) <= tolerance.worst
    passed = close if tolerance.relative is None else relative <= tolerance.relative
    return Row(case, len(pairs), float(difference.max()), relative, passed)


def agree(case: str, pairs: Sequence[tuple[Any, Any]]) -> Row:
    """The same for what isn't made of tensors: equal or not."""
    same = bool(pairs) and all(mine == expected for mine, expected in pairs)
    far = 0.0 if same else float("inf")
    return Row(case, len(pairs), far, far, same)


def thinned(mine: Tensor, like: Tensor) -> Tensor:
    """Every n-th element along each axis, where a golden holds no more than that."""
    steps = [-(-length // max(kept, 1)) for length, kept in zip(mine.shape, like.shape, strict=True)]
    return mine[tuple(slice(None, None, max(step, 1)) for step in steps)]


class _Watched(dict[str, Tensor]):
    """Tensors of a file, and which of them were used."""

    def __init__(self, found: Mapping[str, Tensor]) -> None:
        super().__init__(found)
        self.used: set[str] = set()

    def __getitem__(self, key: str) -> Tensor:
        self.used.add(key)
        return super().__getitem__(key)


class Folder:
    """A folder of goldens that remembers what was read."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tables: dict[str, Any] = {}
        self._tensors: dict[str, _Watched] = {}

    def has(self, name: str) -> bool:
        """Whether there is a file of tensors or a table with a name."""
        return any((self.path / f"{name}{ending}").is_file() for ending in (".safetensors", ".json"))

    def tensors(self, name: str) -> Mapping[str, Tensor]:
        """A file of tensors, half precision widened."""
        if name not in self._tensors:
            self._tensors[name] = _Watched(tensors(name, self.path))
        return self._tensors[name]

    def table(self, name: str) -> Any:
        """A JSON file."""
        if name not in self._tables:
            self._tables[name] = table(name, self.path)
        return self._tables[name]

    def unused(self, besides: Container[str]) -> Iterator[tuple[str, list[str]]]:
        """Files, and keys of files, that nobody asked for; some files may be left out of this."""
        for file in sorted(file for file in self.path.iterdir() if file.stem not in besides):
            if file.suffix == ".safetensors" and file.stem in self._tensors:
                watched = self._tensors[file.stem]
                if left := sorted(watched.keys() - watched.used):
                    yield file.name, left
            elif file.suffix == ".safetensors" or (file.suffix == ".json" and file.stem not in self._tables):
                yield file.name, ["all of it"]
