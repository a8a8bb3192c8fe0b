"""What code allocates, counted without allocating it: tensors on the meta device have sizes and no memory."""

from typing import Any

import torch
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_iter

from services.inference.gpu.model.fast.ops import Partials

_INNERMOST = {4: torch.channels_last, 5: torch.channels_last_3d}


class Allocations(TorchDispatchMode):
    """Inside the block, counts the bytes of all tensors made there that are alive, and the most that ever were.

    What an operation uses inside itself is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self._alive: dict[int, tuple[StorageWeakRef, int]] = {}
        self.peak = 0

    @property
    def bytes(self) -> int:
        """Alive now."""
        gone = [key for key, (reference, _) in self._alive.items() if reference.expired()]
        for key in gone:
            del self._alive[key]
        return sum(size for _, size in self._alive.values())

    def restart(self) -> None:
        """Count the peak from here on."""
        self.peak = self.bytes

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = function(*args, **(kwargs or {}))
        if isinstance(result, Tensor) and "conv" in str(function):
            # A GPU gives what it convolves back with its channels innermost; the meta device doesn't always.
            result = result.contiguous(memory_format=_INNERMOST[result.ndim])
        before = {x.untyped_storage()._cdata for x in tree_iter((args, kwargs)) if isinstance(x, Tensor)}
        for x in tree_iter(result):
            if isinstance(x, Tensor) and (storage := x.untyped_storage())._cdata not in before:
                self._alive[storage._cdata] = StorageWeakRef(storage), storage.nbytes()
        self.peak = max(self.peak, self.bytes)
        return result


class MetaFrameOps:
    """The passes of the fast autoencoder, which allocate their results and nothing else."""

    def measure(self, x: Tensor) -> Partials:
        means, deviations = x.new_empty((2, len(x), 1, x.shape[-1]), dtype=torch.float32)
        return Partials(means=means, deviations=deviations, positions=1, chunk=1)

    def fold(self, partials: Partials, weight: Tensor, bias: Tensor, pending: Tensor | None, groups: int, eps: float) -> Tensor:
        frames, _, channels = partials.means.shape
        return partials.means.new_empty((2, frames, channels))

    def normalise(self, x: Tensor, affine: Tensor, out: Tensor, tail: Tensor | None, *, silu: bool) -> None:
        pass

    def finish(self, y: Tensor, bias: Tensor, skip: Tensor | None, out: Tensor, *, measure: bool) -> Partials | None:
        return self.measure(out) if measure else None

    def allot(self, frames: Tensor, phases: int) -> Partials:
        return self.measure(frames)

    def spread(
        self, phase: Tensor, row: int, column: int, bias: Tensor, out: Tensor, partials: Partials | None, *, border: bool
    ) -> None:
        pass

    def collect(self, products: Tensor, bias: Tensor) -> Tensor:
        frames, height, width, _ = products.shape
        return products.new_empty((frames, len(bias), height, width))

    def softmax(self, scores: Tensor, scale: float, out: Tensor) -> None:
        pass


class MetaTokenOps:
    """The passes of the fast transformer, which allocate their results and nothing else."""

    def enter(self, x: Tensor, shift: Tensor, scale: Tensor, split: int, eps: float) -> Tensor:
        return torch.empty_like(x)

    def join(self, x: Tensor, y: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, split: int, eps: float) -> Tensor:
        return torch.empty_like(x)

    def pack(self, qkv: Tensor, norms: Tensor, sources: Tensor, turns: Tensor, heads: int, split: int, eps: float) -> Tensor:
        return qkv.new_empty((3, len(sources), heads, qkv.shape[1] // 3 // heads))

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        return gate
