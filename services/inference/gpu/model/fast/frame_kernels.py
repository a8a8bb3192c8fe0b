# ruff: noqa: N803, SIM102
"""Triton kernels over frames: statistics, group norm with SiLU, residuals, upsampling, softmax.

A frame is a matrix (positions, channels). Statistics are taken per channel and chunk of positions around a pivot, the chunk's
first position, so that fp32 sums lose nothing where a mean is large; groups are formed from them afterwards.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from services.inference.gpu.model.fast.ops import Partials

_TILE = 8192
"""Elements that a program holds at a time."""

_STEPS = 8
"""Tiles in a chunk."""

_WARPS = 8


@triton.jit
def _store_statistics(total, square, pivot, count, means, deviations, at, columns, live):
    sums = tl.sum(total, 0)
    mean = sums / count
    tl.store(means + at + columns, pivot + mean, mask=live)
    tl.store(deviations + at + columns, tl.maximum(tl.sum(square, 0) - sums * mean, 0.0), mask=live)


@triton.jit
def _measure(x, means, deviations, positions, C: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr, STEPS: tl.constexpr):
    chunk, frame = tl.program_id(0), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, BC)
    live = columns < C
    first = chunk * BR * STEPS
    base = x + frame * positions * C
    pivot = tl.load(base + first.to(tl.int64) * C + columns, mask=live, other=0.0).to(tl.float32)
    total = tl.zeros((BR, BC), tl.float32)
    square = tl.zeros((BR, BC), tl.float32)
    for step in range(STEPS):
        rows = first + step * BR + tl.arange(0, BR)
        inside = (rows < positions)[:, None] & live[None, :]
        value = tl.load(base + rows.to(tl.int64)[:, None] * C + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        value = tl.where(inside, value - pivot[None, :], 0.0)
        total += value
        square += value * value
    count = tl.minimum(positions - first, BR * STEPS).to(tl.float32)
    at = (frame * tl.num_programs(0) + chunk) * C
    _store_statistics(total, square, pivot, count, means, deviations, at, columns, live)


@triton.jit
def _store_affine(weight, bias, offset, middle, variance, eps, affine, frame, frames, channels, live, C: tl.constexpr):
    scale = tl.load(weight + channels, mask=live, other=0.0).to(tl.float32) * tl.rsqrt(variance + eps)
    shift = tl.load(bias + channels, mask=live, other=0.0).to(tl.float32) + (offset - middle) * scale
    tl.store(affine + frame * C + channels, scale, mask=live)
    tl.store(affine + (frames + frame) * C + channels, shift, mask=live)


@triton.jit
def _fold(
    means, deviations, weight, bias, pending, out, frames, chunks, run, positions, chunk_positions, eps,
    C: tl.constexpr, SIZE: tl.constexpr, BG: tl.constexpr, BP: tl.constexpr, BLOCKS: tl.constexpr, PENDING: tl.constexpr,
    AFFINE: tl.constexpr,
):  # fmt: skip
    frame, group = tl.program_id(0).to(tl.int64), tl.program_id(1)
    inside = tl.arange(0, BG)
    channels = group * SIZE + inside
    live = inside < SIZE
    base = frame * chunks * C
    offset = tl.zeros((BG,), tl.float32)
    if PENDING:
        offset = tl.load(pending + channels, mask=live, other=0.0).to(tl.float32)
    total = tl.zeros((BP, BG), tl.float32)
    counted = tl.zeros((BP, BG), tl.float32)
    for block in range(BLOCKS):
        index = block * BP + tl.arange(0, BP)
        there = (index < chunks)[:, None] & live[None, :]
        count = tl.minimum(positions - (index % run) * chunk_positions, chunk_positions).to(tl.float32)[:, None]
        mean = tl.load(means + base + index[:, None] * C + channels[None, :], mask=there, other=0.0) + offset[None, :]
        total += tl.where(there, mean * count, 0.0)
        counted += tl.where(there, count, 0.0)
    elements = tl.sum(counted)
    middle = tl.sum(total) / elements
    spread = tl.zeros((BP, BG), tl.float32)
    for block in range(BLOCKS):
        index = block * BP + tl.arange(0, BP)
        there = (index < chunks)[:, None] & live[None, :]
        count = tl.minimum(positions - (index % run) * chunk_positions, chunk_positions).to(tl.float32)[:, None]
        at = base + index[:, None] * C + channels[None, :]
        distance = tl.load(means + at, mask=there, other=0.0) + offset[None, :] - middle
        own = tl.load(deviations + at, mask=there, other=0.0)
        spread += tl.where(there, own + distance * distance * count, 0.0)
    variance = tl.sum(spread) / elements
    if AFFINE:
        _store_affine(weight, bias, offset, middle, variance, eps, out, frame, frames, channels, live, C)
    else:
        tl.store(out + frame * tl.num_programs(1) + group, middle)
        tl.store(out + (frames + frame) * tl.num_programs(1) + group, variance)


@triton.jit
def _unite(
    moments, weights, weight, bias, pending, affine, frames, parts, eps,
    C: tl.constexpr, SIZE: tl.constexpr, BG: tl.constexpr, BP: tl.constexpr, PENDING: tl.constexpr,
):  # fmt: skip
    frame, group, groups = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.num_programs(1)
    part, inside = tl.arange(0, BP), tl.arange(0, BG)
    there, live = part < parts, inside < SIZE
    channels = group * SIZE + inside
    at = moments + (part * 2 * frames + frame) * groups + group
    share = tl.load(weights + part, mask=there, other=0.0)
    means = tl.load(at, mask=there, other=0.0)
    variances = tl.load(at + frames * groups, mask=there, other=0.0)
    middle = tl.sum(share * means)
    variance = tl.sum(share * (variances + (means - middle) * (means - middle)))
    offset = tl.zeros((BG,), tl.float32)
    if PENDING:
        offset = tl.load(pending + channels, mask=live, other=0.0).to(tl.float32)
    _store_affine(weight, bias, offset, middle, variance, eps, affine, frame, frames, channels, live, C)


@triton.jit
def _normalise(
    x, affine, out, tail, positions, out_frame, tail_frame,
    C: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr, SILU: tl.constexpr, TAIL: tl.constexpr,
):  # fmt: skip
    frame, frames = tl.program_id(1).to(tl.int64), tl.num_programs(1)
    columns = tl.arange(0, BC)
    live = columns < C
    scale = tl.load(affine + frame * C + columns, mask=live, other=0.0)
    shift = tl.load(affine + (frames + frame) * C + columns, mask=live, other=0.0)
    rows = tl.program_id(0) * BR + tl.arange(0, BR)
    inside = (rows < positions)[:, None] & live[None, :]
    at = rows.to(tl.int64)[:, None] * C + columns[None, :]
    base = frame * positions * C
    value = tl.load(x + base + at, mask=inside, other=0.0).to(tl.float32) * scale[None, :] + shift[None, :]
    if SILU:
        value = value / (1.0 + tl.exp(-value))
    value = value.to(out.dtype.element_ty)
    tl.store(out + frame * out_frame + at, value, mask=inside)
    if TAIL:
        if frame >= frames - 2:
            tl.store(tail + (frame - frames + 2) * tail_frame + at, value, mask=inside)


@triton.jit
def _finish(
    y, bias, skip, out, means, deviations, positions, width, out_frame, out_row, out_column,
    C: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr, STEPS: tl.constexpr, SKIP: tl.constexpr, MEASURE: tl.constexpr,
):  # fmt: skip
    chunk, frame = tl.program_id(0), tl.program_id(1).to(tl.int64)
    columns = tl.arange(0, BC)
    live = columns < C
    added = tl.load(bias + columns, mask=live, other=0.0).to(tl.float32)
    first = chunk * BR * STEPS
    base = frame * positions * C
    pivot = tl.load(y + base + first.to(tl.int64) * C + columns, mask=live, other=0.0).to(tl.float32) + added
    if SKIP:
        pivot += tl.load(skip + base + first.to(tl.int64) * C + columns, mask=live, other=0.0).to(tl.float32)
    total = tl.zeros((BR, BC), tl.float32)
    square = tl.zeros((BR, BC), tl.float32)
    # Other programs never touch these rows, but warps of this one may write the first row before others have read it.
    tl.debug_barrier()
    for step in range(STEPS):
        rows = first + step * BR + tl.arange(0, BR)
        inside = (rows < positions)[:, None] & live[None, :]
        at = base + rows.to(tl.int64)[:, None] * C + columns[None, :]
        value = tl.load(y + at, mask=inside, other=0.0).to(tl.float32) + added[None, :]
        if SKIP:
            value += tl.load(skip + at, mask=inside, other=0.0).to(tl.float32)
        stored = value.to(out.dtype.element_ty)
        there = frame * out_frame + (rows // width).to(tl.int64) * out_row + (rows % width).to(tl.int64) * out_column
        tl.store(out + there[:, None] + columns[None, :], stored, mask=inside)
        if MEASURE:
            away = tl.where(inside, stored.to(tl.float32) - pivot[None, :], 0.0)
            total += away
            square += away * away
    if MEASURE:
        count = tl.minimum(positions - first, BR * STEPS).to(tl.float32)
        at = (frame * tl.num_programs(0) + chunk) * C
        _store_statistics(total, square, pivot, count, means, deviations, at, columns, live)


@triton.jit
def _spread(
    phase, bias, out, means, deviations, positions, width, chunks, first_chunk, row, column, edge,
    Z: tl.constexpr, C: tl.constexpr, BC: tl.constexpr, BR: tl.constexpr, STEPS: tl.constexpr, MEASURE: tl.constexpr,
):  # fmt: skip
    chunk, frame = tl.program_id(0), tl.program_id(1).to(tl.int64)
    source_frame, z = frame // Z, frame % Z
    height = positions // width
    columns = tl.arange(0, BC)
    live = columns < C
    # (Z, row, column, on a border row, on a border column, C)
    table = bias + ((z * 2 + row) * 2 + column) * 4 * C
    first = chunk * BR * STEPS
    pivot = tl.load(table + columns, mask=live, other=0.0)
    total = tl.zeros((BR, BC), tl.float32)
    square = tl.zeros((BR, BC), tl.float32)
    for step in range(STEPS):
        cells = first + step * BR + tl.arange(0, BR)
        inside = (cells < positions)[:, None] & live[None, :]
        i, j = cells // width, cells % width
        source = (source_frame * (height + 1) + i + row) * (width + 1) + j + column
        value = tl.load(phase + (source * Z + z)[:, None] * C + columns[None, :], mask=inside, other=0.0).to(tl.float32)
        border = (i == edge).to(tl.int32)
        side = (j == column * (width - 1)).to(tl.int32)
        value += tl.load(table + (border * 2 + side)[:, None] * C + columns[None, :], mask=inside, other=0.0)
        stored = value.to(out.dtype.element_ty)
        there = ((frame * 2 * height + 2 * i + row) * 2 * width + 2 * j + column) * C
        tl.store(out + there[:, None] + columns[None, :], stored, mask=inside)
        if MEASURE:
            away = tl.where(inside, stored.to(tl.float32) - pivot[None, :], 0.0)
            total += away
            square += away * away
    if MEASURE:
        count = tl.minimum(positions - first, BR * STEPS).to(tl.float32)
        at = (frame * chunks + first_chunk + chunk) * C
        _store_statistics(total, square, pivot, count, means, deviations, at, columns, live)


@triton.jit
def _collect(products, bias, out, height, width, channels, BLOCK: tl.constexpr):
    frame, o = tl.program_id(2).to(tl.int64), tl.program_id(1)
    positions = height * width
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    row, column = at // width, at % width
    total = tl.zeros((BLOCK,), tl.float32) + tl.load(bias + o).to(tl.float32)
    base = products + frame * positions * channels + o * 9
    for i in tl.static_range(3):
        for j in tl.static_range(3):
            there = (row + i >= 1) & (row + i <= height) & (column + j >= 1) & (column + j <= width)
            source = (at + (i - 1) * width + j - 1).to(tl.int64) * channels + i * 3 + j
            total += tl.load(base + source, mask=there & (at < positions), other=0.0).to(tl.float32)
    place = out + (frame * tl.num_programs(1) + o) * positions + at
    tl.store(place, total.to(out.dtype.element_ty), mask=at < positions)


@triton.jit
def _softmax(scores, out, length, scale, BLOCK: tl.constexpr, BLOCKS: tl.constexpr):
    row = tl.program_id(0).to(tl.int64)
    base, into = scores + row * length, out + row * length
    columns = tl.arange(0, BLOCK)
    top = tl.full((BLOCK,), -float("inf"), tl.float32)
    total = tl.zeros((BLOCK,), tl.float32)
    for block in range(BLOCKS):
        at = block * BLOCK + columns
        value = tl.load(base + at, mask=at < length, other=-float("inf")) * scale
        higher = tl.maximum(top, value)
        safe = tl.where(higher == -float("inf"), 0.0, higher)
        total = total * tl.exp(top - safe) + tl.exp(value - safe)
        top = higher
    highest = tl.max(top)
    inverse = 1.0 / tl.sum(total * tl.exp(top - highest))
    for block in range(BLOCKS):
        at = block * BLOCK + columns
        value = tl.exp(tl.load(base + at, mask=at < length, other=0.0) * scale - highest) * inverse
        tl.store(into + at, value.to(out.dtype.element_ty), mask=at < length)


def _tile(channels: int) -> tuple[int, int]:
    """Channels rounded up, and rows, of a tile."""
    padded = triton.next_power_of_2(channels)
    return padded, max(_TILE // padded, 1)


def _no_partials(frames: int, positions: int, channels: int, runs: int, device: torch.device) -> Partials:
    chunk = _tile(channels)[1] * _STEPS
    means, deviations = torch.empty((2, frames, runs * -(-positions // chunk), channels), device=device)
    return Partials(means=means, deviations=deviations, positions=positions, chunk=chunk)


class TritonFrameOps:
    """:class:`FrameOps` by Triton. All frames must be contiguous except what :meth:`finish` and :meth:`normalise` write."""

    def measure(self, x: Tensor) -> Partials:
        """See :class:`FrameOps`."""
        frames, height, width, channels = x.shape
        padded, rows = _tile(channels)
        partials = _no_partials(frames, height * width, channels, 1, x.device)
        _measure[(partials.means.shape[1], frames)](
            x, partials.means, partials.deviations, height * width, channels, padded, rows, _STEPS, num_warps=_WARPS
        )
        return partials

    def fold(self, partials: Partials, weight: Tensor, bias: Tensor, pending: Tensor | None, groups: int, eps: float) -> Tensor:
        """See :class:`FrameOps`."""
        frames, _, channels = partials.means.shape
        affine = torch.empty((2, frames, channels), device=weight.device)
        self._fold(partials, weight, bias, pending, groups, eps, affine, into_affine=True)
        return affine

    def summarise(self, partials: Partials, pending: Tensor | None, groups: int) -> Tensor:
        """See :class:`FrameOps`."""
        moments = torch.empty((2, len(partials.means), groups), device=partials.means.device)
        self._fold(partials, moments, moments, pending, groups, 0.0, moments, into_affine=False)
        return moments

    def _fold(
        self, partials: Partials, weight: Tensor, bias: Tensor, pending: Tensor | None, groups: int, eps: float, out: Tensor,
        *, into_affine: bool,
    ) -> None:  # fmt: skip
        frames, chunks, channels = partials.means.shape
        size = channels // groups
        padded = triton.next_power_of_2(size)
        block = max(1024 // padded, 16)
        _fold[(frames, groups)](
            partials.means, partials.deviations, weight, bias, bias if pending is None else pending, out, frames, chunks,
            -(-partials.positions // partials.chunk), partials.positions, partials.chunk, eps,
            channels, size, padded, block, triton.cdiv(chunks, block), pending is not None, into_affine, num_warps=4,
        )  # fmt: skip

    def unite(self, moments: Tensor, weights: Tensor, weight: Tensor, bias: Tensor, pending: Tensor | None, eps: float) -> Tensor:
        """See :class:`FrameOps`."""
        parts, _, frames, groups = moments.shape
        channels, size = len(weight), len(weight) // groups
        affine = torch.empty((2, frames, channels), device=weight.device)
        _unite[(frames, groups)](
            moments, weights, weight, bias, bias if pending is None else pending, affine, frames, parts, eps,
            channels, size, triton.next_power_of_2(size), triton.next_power_of_2(parts), pending is not None, num_warps=1,
        )  # fmt: skip
        return affine

    def normalise(self, x: Tensor, affine: Tensor, out: Tensor, tail: Tensor | None, *, silu: bool) -> None:
        """See :class:`FrameOps`."""
        frames, height, width, channels = x.shape
        padded, rows = _tile(channels)
        _normalise[(triton.cdiv(height * width, rows), frames)](
            x, affine, out, out if tail is None else tail, height * width, out.stride(0), 0 if tail is None else tail.stride(0),
            channels, padded, rows, silu, tail is not None, num_warps=_WARPS,
        )  # fmt: skip

    def finish(self, y: Tensor, bias: Tensor, skip: Tensor | None, out: Tensor, *, measure: bool) -> Partials | None:
        """See :class:`FrameOps`."""
        frames, height, width, channels = y.shape
        padded, rows = _tile(channels)
        partials = _no_partials(frames, height * width, channels, 1, y.device) if measure else None
        means, deviations = (partials.means, partials.deviations) if partials is not None else (bias, bias)
        _finish[(triton.cdiv(height * width, rows * _STEPS), frames)](
            y, bias, y if skip is None else skip, out, means, deviations, height * width, width, *out.stride()[:3],
            channels, padded, rows, _STEPS, skip is not None, measure, num_warps=_WARPS,
        )  # fmt: skip
        return partials

    def allot(self, frames: Tensor, phases: int) -> Partials:
        """See :class:`FrameOps`."""
        count, height, width, channels = frames.shape
        return _no_partials(count, height * width // phases, channels, phases, frames.device)

    def spread(
        self, phase: Tensor, row: int, column: int, bias: Tensor, out: Tensor, partials: Partials | None, *, border: bool
    ) -> None:
        """See :class:`FrameOps`."""
        frames, height, width, channels = out.shape
        cells = height * width // 4
        padded, rows = _tile(channels)
        run = triton.cdiv(cells, rows * _STEPS)
        means, deviations = (partials.means, partials.deviations) if partials is not None else (bias, bias)
        _spread[(run, frames)](
            phase, bias, out, means, deviations, cells, width // 2, 4 * run, (2 * row + column) * run, row, column,
            row * (height // 2 - 1) if border else -1, bias.shape[0], channels, padded, rows, _STEPS, partials is not None,
            num_warps=_WARPS,
        )  # fmt: skip

    def collect(self, products: Tensor, bias: Tensor) -> Tensor:
        """See :class:`FrameOps`."""
        frames, height, width, channels = products.shape
        out = products.new_empty((frames, len(bias), height, width))
        grid = (triton.cdiv(height * width, 256), len(bias), frames)
        _collect[grid](products, bias, out, height, width, channels, 256, num_warps=4)
        return out

    def softmax(self, scores: Tensor, scale: float, out: Tensor) -> None:
        """See :class:`FrameOps`."""
        rows, length = scores.shape
        block = min(triton.next_power_of_2(length), 4096)
        _softmax[(rows,)](scores, out, length, scale, block, triton.cdiv(length, block), num_warps=_WARPS)
