"""The fused passes in plain PyTorch, in any precision: what the kernels must compute, and what stands for them without a GPU."""

import torch
from torch import Tensor
from torch.nn import functional

from services.inference.gpu.model.fast.ops import Partials
from services.inference.gpu.parallel.frames import unite


def wide(x: Tensor) -> Tensor:
    """fp32, or fp64 where it was."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def measured(x: Tensor) -> tuple[Tensor, Tensor]:
    rows = wide(x).flatten(1, 2)
    means = rows.mean(1, keepdim=True)
    return means, (rows - means).square().sum(1, keepdim=True)


class ReferenceFrameOps:
    """One chunk a frame."""

    def measure(self, x: Tensor) -> Partials:
        means, deviations = measured(x)
        positions = x.shape[1] * x.shape[2]
        return Partials(means=means, deviations=deviations, positions=positions, chunk=positions)

    def fold(self, partials: Partials, weight: Tensor, bias: Tensor, pending: Tensor | None, groups: int, eps: float) -> Tensor:
        moments = self.summarise(partials, pending, groups)
        return self.unite(moments[None], torch.ones(1, device=weight.device), weight, bias, pending, eps)

    def summarise(self, partials: Partials, pending: Tensor | None, groups: int) -> Tensor:
        frames, chunks, channels = partials.means.shape
        assert partials.positions == partials.chunk
        means = partials.means + (0 if pending is None else wide(pending))
        grouped = means.view(frames, chunks, groups, -1)
        middle = grouped.mean((1, 3), keepdim=True)
        deviations = partials.deviations.view(frames, chunks, groups, -1) + (grouped - middle).square() * partials.positions
        variance = deviations.sum((1, 3)) / (partials.positions * chunks * channels // groups)
        return torch.stack([middle.view(frames, groups), variance])

    def unite(self, moments: Tensor, weights: Tensor, weight: Tensor, bias: Tensor, pending: Tensor | None, eps: float) -> Tensor:
        size = len(weight) // moments.shape[3]
        middle, variance = (moment.repeat_interleave(size, 1) for moment in unite(moments, weights))
        scale = torch.rsqrt(variance + eps) * wide(weight)
        return torch.stack([scale, wide(bias) + ((0 if pending is None else wide(pending)) - middle) * scale])

    def normalise(self, x: Tensor, affine: Tensor, out: Tensor, tail: Tensor | None, *, silu: bool) -> None:
        y = wide(x) * affine[0, :, None, None] + affine[1, :, None, None]
        out.copy_(functional.silu(y) if silu else y)
        if tail is not None:
            tail.copy_(out[-2:])

    def finish(self, y: Tensor, bias: Tensor, skip: Tensor | None, out: Tensor, *, measure: bool) -> Partials | None:
        out.copy_(wide(y) + wide(bias) + (0 if skip is None else wide(skip)))
        return self.measure(out) if measure else None

    def allot(self, frames: Tensor, phases: int) -> Partials:
        count, height, width, channels = frames.shape
        shape = (2, count, phases, channels)
        means, deviations = torch.empty(shape, dtype=torch.promote_types(frames.dtype, torch.float32), device=frames.device)
        positions = height * width // phases
        return Partials(means=means, deviations=deviations, positions=positions, chunk=positions)

    def spread(
        self, phase: Tensor, row: int, column: int, bias: Tensor, out: Tensor, partials: Partials | None, *, border: bool
    ) -> None:
        frames, height, width, channels = out.shape
        doubled = len(bias)
        cells = wide(phase[:, row : row + height // 2, column : column + width // 2])
        cells = cells.unflatten(-1, (doubled, channels)).permute(0, 3, 1, 2, 4).flatten(0, 1)
        edge = row * (height // 2 - 1) if border else -1
        on_row = (torch.arange(height // 2, device=out.device) == edge).long()
        on_column = (torch.arange(width // 2, device=out.device) == column * (width // 2 - 1)).long()
        added = bias[:, row, column][:, on_row][:, :, on_column].repeat(frames // doubled, 1, 1, 1)
        out[:, row::2, column::2] = (cells + added).to(out.dtype)
        if partials is not None:
            means, deviations = measured(out[:, row::2, column::2])
            partials.means[:, 2 * row + column] = means[:, 0]
            partials.deviations[:, 2 * row + column] = deviations[:, 0]

    def collect(self, products: Tensor, bias: Tensor) -> Tensor:
        height, width = products.shape[1:3]
        padded = functional.pad(wide(products), (0, 0, 1, 1, 1, 1))
        sums = [
            sum(padded[:, i : i + height, j : j + width, 9 * o + 3 * i + j] for i in range(3) for j in range(3))
            for o in range(len(bias))
        ]
        return (torch.stack(sums, 1) + wide(bias)[:, None, None]).to(products.dtype)

    def softmax(self, scores: Tensor, scale: float, out: Tensor) -> None:
        out.copy_((scores * scale).softmax(-1))


class ReferenceTokenOps:
    """Row by row as the interface says."""

    def enter(self, x: Tensor, shift: Tensor, scale: Tensor, split: int, eps: float) -> Tensor:
        rows = wide(x)
        normed = rows * torch.rsqrt(rows.square().mean(-1, keepdim=True) + eps)
        words = (torch.arange(len(x), device=x.device) >= split).long()
        return (normed * scale[words] + shift[words]).to(x.dtype)

    def join(self, x: Tensor, y: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, split: int, eps: float) -> Tensor:
        words = (torch.arange(len(x), device=x.device) >= split).long()
        x.copy_(wide(x) + wide(y) * gate.expand(2, -1)[words])
        return self.enter(x, shift, scale, split, eps)

    def pack(self, qkv: Tensor, norms: Tensor, sources: Tensor, turns: Tensor, heads: int, split: int, eps: float) -> Tensor:
        rows = qkv[sources.long()].view(len(sources), 3, heads, -1)
        words = (sources.long() >= split).long()
        turn = torch.view_as_complex(turns)[sources.long()][:, None]
        packed = []
        for part in range(2):
            x = wide(rows[:, part])
            x = x * torch.rsqrt(x.square().mean(-1, keepdim=True) + eps) * norms[part][words][:, None]
            packed.append(torch.view_as_real(torch.view_as_complex(x.unflatten(-1, (-1, 2))) * turn).flatten(-2).to(qkv.dtype))
        return torch.stack([*packed, rows[:, 2]])

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        return gate.copy_(functional.silu(wide(gate)) * wide(up))
