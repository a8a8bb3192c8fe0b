"""What the fast paths ask of fused kernels. Triton answers on a GPU; tests answer with plain PyTorch.

Frames are (T, H, W, C), channels innermost, in the compute type. Statistics, scales and biases are fp32.
"""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Partials:
    """Means and sums of squared deviations of each frame's channels over chunks of its positions."""

    means: Tensor
    """(T, chunks, C) fp32."""

    deviations: Tensor
    """(T, chunks, C) fp32, sums of squared distances from the chunk's own mean."""

    positions: int
    """Positions that one run over the chunks covers; a multiple of it is the whole frame."""

    chunk: int
    """Positions of a chunk; the last chunk of a run may be smaller."""

    def of(self, frames: slice) -> "Partials":
        """Those of some of the frames, as views."""
        means, deviations = self.means[frames], self.deviations[frames]
        return Partials(means=means, deviations=deviations, positions=self.positions, chunk=self.chunk)


class FrameOps(Protocol):
    """Passes over frames between the convolutions of the autoencoder."""

    def measure(self, x: Tensor) -> Partials:
        """Statistics of each frame's channels."""

    def fold(self, partials: Partials, weight: Tensor, bias: Tensor, pending: Tensor | None, groups: int, eps: float) -> Tensor:
        """Statistics and a group norm's parameters to (2, T, C) fp32: a scale and a shift for each frame and channel.

        ``pending`` (C,) is a bias that the measured frames still lack.
        """

    def summarise(self, partials: Partials, pending: Tensor | None, groups: int) -> Tensor:
        """The first half of :meth:`fold`: (2, T, groups) fp32 means and variances of each frame's groups."""

    def unite(self, moments: Tensor, weights: Tensor, weight: Tensor, bias: Tensor, pending: Tensor | None, eps: float) -> Tensor:
        """The second half: (parts, 2, T, groups) moments of frames' parts, and (parts,) how much of a frame each is."""

    def normalise(self, x: Tensor, affine: Tensor, out: Tensor, tail: Tensor | None, *, silu: bool) -> None:
        """``out`` = x · scale + shift, then SiLU; the last two frames go to ``tail`` (2, H, W, C) too.

        ``out`` may be ``x``; it and ``tail`` may lie in longer frames.
        """

    def finish(self, y: Tensor, bias: Tensor, skip: Tensor | None, out: Tensor, *, measure: bool) -> Partials | None:
        """``out`` = y + bias + skip, rounded once, and its statistics. ``out`` may be ``y``, or have longer rows and frames."""

    def allot(self, frames: Tensor, phases: int) -> Partials:
        """Statistics of (T, H, W, C) frames, not yet filled in, that ``phases`` calls of :meth:`spread` write."""

    def spread(
        self, phase: Tensor, row: int, column: int, bias: Tensor, out: Tensor, partials: Partials | None, *, border: bool
    ) -> None:
        """Write one sub-position of upsampled frames.

        Args:
            phase: (T, h + 1, w + 1, Z · C); position (i, j) of the sub-position (row, column) is at (i + row, j + column).
            row: 0 or 1.
            column: 0 or 1.
            bias: (Z, 2, 2, 2, 2, C): time sub-position, row, column, whether on the first or last row, likewise column.
            out: (T · Z, 2h, 2w, C).
            partials: where the statistics of what was written go.
            border: whether the first row (of row 0) or last row (of row 1) is a border of the frame.
        """

    def collect(self, products: Tensor, bias: Tensor) -> Tensor:
        """Sum what each position gives its neighbours.

        Args:
            products: (T, H, W, 9 · O and more): the channel (o, i, j) of position (h + i - 1, w + j - 1) goes to (o, h, w).
            bias: (O,).

        Returns:
            (T, O, H, W).
        """

    def softmax(self, scores: Tensor, scale: float, out: Tensor) -> None:
        """``out`` = softmax of each row of fp32 scores · scale."""


class TokenOps(Protocol):
    """Passes over tokens between the matrix products of the transformer. Tokens are (rows, width), video before text."""

    def enter(self, x: Tensor, shift: Tensor, scale: Tensor, split: int, eps: float) -> Tensor:
        """rms(x) · scale + shift; vectors (2, width): for rows before ``split`` and for the others."""

    def join(self, x: Tensor, y: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, split: int, eps: float) -> Tensor:
        """x += y · gate in place, then :meth:`enter`."""

    def pack(self, qkv: Tensor, norms: Tensor, sources: Tensor, turns: Tensor, heads: int, split: int, eps: float) -> Tensor:
        """Normed and turned queries and keys, and values, in the order of windows.

        Args:
            qkv: (tokens, 3 · width) projections.
            norms: (2, 2, head width) fp32 weights: of queries, of keys; for rows before ``split``, for the others.
            sources: (rows,) int32 token of each packed row.
            turns: (tokens, head width / 2, 2) fp32 cosine and sine of each pair of channels.
            heads: how many.
            split: first text token.
            eps: of the norms.

        Returns:
            (3, rows, heads, head width).
        """

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """silu(gate) · up, overwriting ``gate``."""
