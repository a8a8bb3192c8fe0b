"""Frames divided among ranks by rows, with exact borders.

Each rank has a run of whole latent rows, at every resolution the rows that these code. What looks beyond its own rows asks the
neighbours: convolutions for a row above and below, group norms for the statistics of the others, attention for their keys and
values.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from services.inference.gpu.parallel.mesh import Mesh
from services.inference.gpu.parallel.sequence import divide

_LEAST_ROWS = 2
"""Latent rows that a rank has at least; where there are fewer, exchanging them costs more than computing them twice."""


@dataclass(frozen=True, slots=True, eq=False)
class RowShare:
    """How the frames of one size are divided."""

    mesh: Mesh
    """The ranks that have a part each. One rank where frames are not divided; each rank then has all of them."""

    rows: tuple[int, ...] = (1,)
    """Latent rows of each rank."""

    weights: Tensor | None = None
    """(ranks,) fp32 part of a frame that each rank has; None where frames are not divided."""

    @classmethod
    def of(cls, height: int, factor: int, mesh: Mesh) -> "RowShare":
        """For frames of ``height`` rows, ``factor`` for a latent row. Few or broken rows are not divided."""
        rows, rest = divmod(height, factor)
        if mesh.size == 1 or rest or rows < _LEAST_ROWS * mesh.size:
            return cls(Mesh.solo(mesh.device))
        parts = divide(rows, mesh.size)
        return cls(mesh, tuple(parts), torch.tensor(parts, dtype=torch.float32, device=mesh.device) / rows)

    @property
    def spare(self) -> int:
        """Rows that a convolution's input has beyond its own on each side, for those of the neighbours."""
        return 0 if self.mesh.size == 1 else 1

    def own(self, x: Tensor, scale: int) -> Tensor:
        """This rank's rows of full frames (T, C, H, W), ``scale`` rows for a latent row."""
        if self.mesh.size == 1:
            return x
        first, count = sum(self.rows[: self.mesh.rank]), self.rows[self.mesh.rank]
        return x[:, :, first * scale : (first + count) * scale]

    def join(self, x: Tensor, scale: int, dim: int = 2) -> Tensor:
        """All rows of what every rank has its own of, along ``dim``; ``scale`` steps for a latent row."""
        return self.mesh.all_gather(x, [count * scale for count in self.rows], dim)

    def fill_around(self, frames: Tensor) -> None:
        """Write the neighbours' rows into the spare first and last row of (T, H + 2, W, C), zeros at the frame's borders."""
        if self.spare:
            above, below = self.mesh.exchange(frames[:, 1], frames[:, -2])
            frames[:, 0] = 0 if above is None else above
            frames[:, -1] = 0 if below is None else below

    def inner(self, frames: Tensor) -> Tensor:
        """(T, H + 2, W, C) without the spare rows."""
        return frames[:, self.spare : frames.shape[1] - self.spare]

    def copy_spare(self, source: Tensor, target: Tensor) -> None:
        """The spare rows of (T, H + 2, W, C) into those of a tensor like it."""
        if self.spare:
            rows = slice(None, None, source.shape[1] - 1)
            target[:, rows] = source[:, rows]

    def fill_below(self, frames: Tensor) -> None:
        """Write the next rank's first row into the last row of (T, H + 1, W, C); at the frame's border it stays."""
        if self.spare:
            _, below = self.mesh.exchange(frames[:, 0], None)
            if below is not None:
                frames[:, -1] = below

    def at_border(self, *, bottom: bool) -> bool:
        """Whether this rank's first, or last, row is that of the frame."""
        return self.mesh.rank == (self.mesh.size - 1 if bottom else 0)

    def gather(self, moments: Tensor) -> Tensor:
        """(2, T, G) means and variances over own rows to (ranks, 2, T, G)."""
        return self.mesh.all_gather(moments[None], [1] * self.mesh.size)

    def unite(self, means: Tensor, variances: Tensor) -> tuple[Tensor, Tensor]:
        """(T, G) means and variances over own rows to those over whole frames."""
        if self.weights is None:
            return means, variances
        return unite(self.gather(torch.stack([means, variances])), self.weights)


def unite(moments: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """(ranks, 2, T, G) means and variances of the parts, and (ranks,) their weights, to the (T, G) of the whole."""
    means, variances = moments.unbind(1)
    weights = weights[:, None, None].to(moments.dtype)
    mean = (weights * means).sum(0)
    return mean, (weights * (variances + (means - mean).square())).sum(0)
