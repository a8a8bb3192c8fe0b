"""The autoencoder over overlapping tiles, for frames that don't fit at once.

An approximation: norms and attention see a tile's statistics instead of the frame's, and tiles are blended where they overlap.
In time nothing is lost: each tile is a stream of its own, so slices follow each other as they do without tiles.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

import torch
from torch import Tensor

from services.common.errors import InvalidOption
from services.inference.gpu.model.vae import Vae, VaeState

# Ramps start at 0, so where only they meet, weights may sum up to nothing.
_LEAST_WEIGHT = 1e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Tiling:
    """How one axis of a frame is cut."""

    size: int
    """Of a tile, pixels; rounded down to whole latent positions, but at least one."""

    overlap: int
    """Pixels that neighbours share, of which less than a tile counts."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.overlap < 0:
            raise InvalidOption(f"tiles of {self.size} pixels that share {self.overlap}", field="tile_size")


class Span(NamedTuple):
    """Positions [first, end) of a latent along one axis."""

    first: int
    end: int

    def in_pixels(self, factor: int) -> slice:
        """The pixels that these positions code."""
        return slice(self.first * factor, self.end * factor)


Tile = tuple[Span, Span]
"""Rows and columns of a latent."""


class TilingState:
    """What an encoder or decoder carries from slice to slice of one stream: a state for each tile."""

    def __init__(self) -> None:
        self.of: dict[Tile, VaeState] = defaultdict(VaeState)
        """By tile; made when the tile is first seen."""


class TiledVae:
    """A :class:`Vae` that takes a tile at a time; a frame that fits one tile goes through whole."""

    def __init__(self, vae: Vae, rows: Tiling, columns: Tiling) -> None:
        self._vae = vae
        self._axes = (rows, columns)
        self._factor = vae.spec.spatial_factor

    def moments(self, frames: Tensor, state: TilingState) -> Tensor:
        """As :meth:`Vae.moments`; tiles are blended in the latent, over whole positions of their overlap."""
        height, width = (-(-side // self._factor) for side in frames.shape[-2:])
        tiles = self._tiles(height, width)
        parts = (
            self._vae.moments(frames[..., rows.in_pixels(self._factor), columns.in_pixels(self._factor)], state.of[rows, columns])
            for rows, columns in tiles
        )
        ramps = [_shared(axis, self._factor) for axis in self._axes]
        return blend(tiles, parts, ramps, factor=1)

    def encode(self, frames: Tensor, state: TilingState) -> Tensor:
        """As :meth:`Vae.encode`."""
        return self._vae.as_latents(self.moments(frames, state))

    def decode(self, latents: Tensor, state: TilingState) -> Tensor:
        """As :meth:`Vae.decode`; tiles are blended in pixels, over their overlap as it was given."""
        tiles = self._tiles(latents.shape[1], latents.shape[2])
        parts = (self._vae.decode(latents[:, slice(*rows), slice(*columns)], state.of[rows, columns]) for rows, columns in tiles)
        return blend(tiles, parts, [axis.overlap for axis in self._axes], factor=self._factor)

    def _tiles(self, height: int, width: int) -> list[Tile]:
        rows, columns = (cut(side, axis, self._factor) for side, axis in zip((height, width), self._axes, strict=True))
        return [(row, column) for row in rows for column in columns]


def cut(length: int, tiling: Tiling, factor: int) -> list[Span]:
    """The tiles along an axis of so many latent positions; one that lies within its predecessor's overlap is left out."""
    size, shared = _size(tiling, factor), _shared(tiling, factor)
    spans = [Span(first, min(first + size, length)) for first in range(0, length, size - shared)]
    return [span for span in spans if span.first == 0 or span.end - span.first > shared]


def _size(tiling: Tiling, factor: int) -> int:
    return max(1, tiling.size // factor)


def _shared(tiling: Tiling, factor: int) -> int:
    """Latent positions that neighbours share."""
    return min(tiling.overlap // factor, _size(tiling, factor) - 1)


def blend(tiles: list[Tile], parts: Iterable[Tensor], ramps: Sequence[int], *, factor: int) -> Tensor:
    """Weighted mean of tiles, summed in fp32 at least.

    Args:
        tiles: which positions each part covers; together they cover all.
        parts: (T, C, h · factor, w · factor) each; taken one after the other.
        ramps: rows and columns over which a tile fades into its neighbour.
        factor: rows and columns of a part for a latent position.

    Returns:
        (T, C, H, W) in the type of the parts.
    """
    shares = _shares(tiles, ramps, factor)
    parts = iter(parts)
    first = next(parts)
    shape, exact = (*first.shape[:2], *_size_of(tiles, factor)), torch.promote_types(first.dtype, torch.float32)
    total = torch.zeros(shape, dtype=exact, device=first.device)
    for (rows, columns), share, part in zip(tiles, shares, chain([first], parts), strict=True):
        total[..., rows.in_pixels(factor), columns.in_pixels(factor)] += part * share.to(part.device)
    return total.to(first.dtype)


def _shares(tiles: list[Tile], ramps: Sequence[int], factor: int) -> list[Tensor]:
    """(h · factor, w · factor) fp32 for each tile: what it contributes; all that cover a pixel sum up to 1 there."""
    height, width = _size_of(tiles, factor)
    total = torch.zeros((height, width))
    weights = []
    for rows, columns in tiles:
        down = _fade(rows.in_pixels(factor), height, ramps[0])
        weights.append(torch.outer(down, _fade(columns.in_pixels(factor), width, ramps[1])))
        total[rows.in_pixels(factor), columns.in_pixels(factor)] += weights[-1]
    total.clamp_(min=_LEAST_WEIGHT)
    whole = zip(tiles, weights, strict=True)
    return [weight / total[rows.in_pixels(factor), columns.in_pixels(factor)] for (rows, columns), weight in whole]


def _size_of(tiles: list[Tile], factor: int) -> tuple[int, int]:
    return max(rows.end for rows, _ in tiles) * factor, max(columns.end for _, columns in tiles) * factor


def _fade(extent: slice, length: int, ramp: int) -> Tensor:
    """(extent,) fp32 weights of a tile along one axis: from 0 to 1 and back where it doesn't end at the frame's edge."""
    weights = torch.ones(extent.stop - extent.start)
    # A ramp that is longer than the tile is cut off, not squeezed.
    rising = (0.5 - 0.5 * torch.cos(torch.pi * torch.arange(ramp) / max(ramp - 1, 1)))[: len(weights) - 1]
    if extent.start > 0:
        weights[: len(rising)] = rising
    if extent.stop < length and len(rising):
        weights[-len(rising) :] = 1.0 - rising
    return weights
