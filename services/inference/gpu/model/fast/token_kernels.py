# ruff: noqa: N803
"""Triton kernels over tokens: norms with modulation and gates, queries and keys on their way into windows, the gated MLP."""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def _join(
    x, y, gate, shift, scale, out, split, eps, WIDTH: tl.constexpr, BLOCK: tl.constexpr, JOIN: tl.constexpr
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    columns = tl.arange(0, BLOCK)
    live = columns < WIDTH
    vectors = (row >= split).to(tl.int32) * WIDTH + columns
    value = tl.load(x + row * WIDTH + columns, mask=live, other=0.0).to(tl.float32)
    if JOIN:
        value += tl.load(y + row * WIDTH + columns, mask=live, other=0.0).to(tl.float32) * tl.load(gate + vectors, mask=live)
        stored = value.to(x.dtype.element_ty)
        tl.store(x + row * WIDTH + columns, stored, mask=live)
        value = tl.where(live, stored.to(tl.float32), 0.0)
    root = tl.rsqrt(tl.sum(value * value) / WIDTH + eps)
    value = value * root * tl.load(scale + vectors, mask=live) + tl.load(shift + vectors, mask=live)
    tl.store(out + row * WIDTH + columns, value.to(out.dtype.element_ty), mask=live)


@triton.jit
def _norm_and_turn(projected, weight, cosine, sine, eps, HEAD: tl.constexpr, BH: tl.constexpr, BC: tl.constexpr):
    root = tl.rsqrt(tl.sum(projected * projected, 1) / HEAD + eps)
    value = projected * root[:, None] * weight[None, :]
    first, second = tl.split(tl.reshape(value, (BH, BC // 2, 2)))
    turned = tl.join(first * cosine - second * sine, second * cosine + first * sine)
    return tl.reshape(turned, (BH, BC))


@triton.jit
def _pack(
    qkv, norms, sources, turns, out, rows, split, eps,
    HEADS: tl.constexpr, BH: tl.constexpr, HEAD: tl.constexpr, BC: tl.constexpr,
):  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    source = tl.load(sources + row).to(tl.int64)
    words = (source >= split).to(tl.int32)
    heads, channels, pairs = tl.arange(0, BH), tl.arange(0, BC), tl.arange(0, BC // 2)
    inside, turning = channels < HEAD, pairs < HEAD // 2
    cosine = tl.load(turns + source * HEAD + pairs * 2, mask=turning, other=0.0)[None, :]
    sine = tl.load(turns + source * HEAD + pairs * 2 + 1, mask=turning, other=0.0)[None, :]
    live = (heads < HEADS)[:, None] & inside[None, :]
    at = heads[:, None] * HEAD + channels[None, :]
    width = HEADS * HEAD
    read, write = qkv + source * 3 * width + at, out + row * width + at
    for part in tl.static_range(2):
        weight = tl.load(norms + (part * 2 + words) * HEAD + channels, mask=inside, other=0.0)
        projected = tl.load(read + part * width, mask=live, other=0.0).to(tl.float32)
        turned = _norm_and_turn(projected, weight, cosine, sine, eps, HEAD, BH, BC)
        tl.store(write + part * rows * width, turned.to(out.dtype.element_ty), mask=live)
    tl.store(write + 2 * rows * width, tl.load(read + 2 * width, mask=live, other=0.0), mask=live)


@triton.jit
def _gated(gate, up, elements, BLOCK: tl.constexpr):
    at = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    live = at < elements
    value = tl.load(gate + at, mask=live, other=0.0).to(tl.float32)
    value = value / (1.0 + tl.exp(-value)) * tl.load(up + at, mask=live, other=0.0).to(tl.float32)
    tl.store(gate + at, value.to(gate.dtype.element_ty), mask=live)


class TritonTokenOps:
    """:class:`TokenOps` by Triton. All tensors must be contiguous."""

    def enter(self, x: Tensor, shift: Tensor, scale: Tensor, split: int, eps: float) -> Tensor:
        """See :class:`TokenOps`."""
        return _enter(x, None, shift, shift, scale, split, eps)

    def join(self, x: Tensor, y: Tensor, gate: Tensor, shift: Tensor, scale: Tensor, split: int, eps: float) -> Tensor:
        """See :class:`TokenOps`."""
        return _enter(x, y, gate, shift, scale, split, eps)

    def pack(self, qkv: Tensor, norms: Tensor, sources: Tensor, turns: Tensor, heads: int, split: int, eps: float) -> Tensor:
        """See :class:`TokenOps`."""
        head = qkv.shape[1] // (3 * heads)
        out = qkv.new_empty((3, len(sources), heads, head))
        _pack[(len(sources),)](
            qkv, norms, sources, turns, out, len(sources), split, eps,
            heads, triton.next_power_of_2(heads), head, triton.next_power_of_2(head), num_warps=4,
        )  # fmt: skip
        return out

    def gated(self, gate: Tensor, up: Tensor) -> Tensor:
        """See :class:`TokenOps`."""
        _gated[(triton.cdiv(gate.numel(), 4096),)](gate, up, gate.numel(), 4096, num_warps=8)
        return gate


def _enter(x: Tensor, y: Tensor | None, gate: Tensor, shift: Tensor, scale: Tensor, split: int, eps: float) -> Tensor:
    rows, width = x.shape
    out = torch.empty_like(x)
    if not rows:
        return out
    _join[(rows,)](
        x, x if y is None else y, gate, shift, scale, out, split, eps, width, triton.next_power_of_2(width), y is not None,
        num_warps=8,
    )  # fmt: skip
    return out
