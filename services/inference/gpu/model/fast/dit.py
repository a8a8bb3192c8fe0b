"""The transformer on a GPU: video and text tokens lie in one matrix, and what stands between two matrix products is one kernel.

Blocks with shared weights take both in one product; blocks with weights apart take two. Gate, residual, norm and modulation
are one pass; norm and rotation of queries and keys and the way into windows are another. Nothing goes to the host and back.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor

from services.inference.gpu.model.attention import AttentionLayout, ByModality, WindowAttention
from services.inference.gpu.model.dit import Block, Checkpoint, Dit, GeluMlp, Modulation, SwiGlu
from services.inference.gpu.model.fast.ops import TokenOps
from services.inference.gpu.model.kernels import Attend


class _Half(NamedTuple):
    """How half a block is modulated; (2, width) fp32 each, for video and for text."""

    shift: Tensor
    scale: Tensor
    gate: Tensor


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Route:
    """How tokens get into windows and back."""

    layout: AttentionLayout
    """Windows and rotary turns."""

    sources: Tensor
    """(rows,) int32 token of each packed row."""

    turns: Tensor
    """(tokens, head width / 2, 2) fp32."""


class FastDit:
    """One :class:`Dit`, whose parameters must not change any more."""

    def __init__(self, dit: Dit, ops: TokenOps, attend: Attend) -> None:
        self._dit = dit
        self._ops = ops
        self._attend = attend
        self._eps = dit.spec.norm_eps
        blocks: list[Block] = list(dit.blocks)  # type: ignore[arg-type]
        self._blocks = blocks
        self._learned = torch.stack([_modulations(block) for block in blocks])
        self._norms = [_norm_weights(block.attn) for block in blocks]
        self._route = lru_cache(maxsize=8)(_route)

    def __call__(
        self, x: Tensor, text: Tensor, timestep: Tensor, layouts: tuple[AttentionLayout, AttentionLayout], checkpoint: Checkpoint
    ) -> Tensor:
        """As :meth:`Dit.forward`; ``layouts`` are those of even and odd blocks."""
        dit = self._dit
        grid = (x.shape[0], x.shape[1] // dit.spec.patch, x.shape[2] // dit.spec.patch)
        tokens = torch.cat([dit.vid_in(x), dit.txt_in(text)])
        split = len(tokens) - len(text)
        emb = dit.emb_in(timestep).float().view(-1, 2, 3)
        halves = _halves(self._learned, emb, bare_last_text=dit.spec.bare_last_text)
        routes = [self._route(layout) for layout in layouts]
        inputs = self._ops.enter(tokens, halves[0][0].shift, halves[0][0].scale, split, self._eps)
        for index, block in enumerate(dit.blocks_in_turn()):
            checkpoint()
            last = index + 1 == len(self._blocks)
            attention, mlp = halves[index]
            after = self._after(halves, index, emb)
            attended = self._attention(block.attn, self._norms[index], inputs, routes[index % 2], split, keep_text=not last)
            if last:
                tokens = tokens[:split]
            inputs = self._ops.join(tokens, attended, attention.gate, mlp.shift, mlp.scale, split, self._eps)
            grown = _by_modality(block.mlp, inputs, dit.spec.width, split, self._mlp)
            if after is None:
                tokens.addcmul_(grown, mlp.gate[0])
            else:
                inputs = self._ops.join(tokens, grown, mlp.gate, after.shift, after.scale, split, self._eps)
        velocity: Tensor = dit.vid_out(tokens if self._ends_plain() else inputs, grid)
        return velocity

    def _ends_plain(self) -> bool:
        return self._dit.vid_out_norm is None or self._dit.vid_out_ada is None

    def _after(self, halves: list[tuple[_Half, _Half]], index: int, emb: Tensor) -> _Half | None:
        """What the next norm is modulated by: the next block's attention half, or the output's."""
        if index + 1 < len(halves):
            return halves[index + 1][0]
        norm, ada = self._dit.vid_out_norm, self._dit.vid_out_ada
        if norm is None or ada is None:
            return None
        scale = (ada.out_scale.float() + emb[:, 0, 1]) * norm.weight.float()
        shift = ada.out_shift.float() + emb[:, 0, 0]
        return _Half(shift.expand(2, -1).contiguous(), scale.expand(2, -1).contiguous(), shift)

    def _attention(
        self, attention: WindowAttention, norms: Tensor, x: Tensor, route: _Route, split: int, *, keep_text: bool
    ) -> Tensor:
        windows, exchange, spec = route.layout.windows, route.layout.exchange, self._dit.spec
        qkv = exchange.to_windows(_by_modality(attention.proj_qkv, x, 3 * spec.width, split, _project))
        held, heads = len(windows.held), exchange.heads
        q, k, v = self._ops.pack(qkv, norms, route.sources, route.turns, heads, held, spec.norm_eps)
        del qkv
        attended = self._attend(q, k, v, windows.packing).flatten(1)
        back = exchange.to_tokens(windows.unpack(attended, text=keep_text))
        return _by_modality(attention.proj_out, back, spec.width, split, _project)

    def _mlp(self, mlp: SwiGlu | GeluMlp, x: Tensor, out: Tensor) -> None:
        wide = self._ops.gated(mlp.proj_in_gate(x), mlp.proj_in(x)) if isinstance(mlp, SwiGlu) else mlp.widen(x)
        _project(mlp.proj_out, wide, out)


_Apply = Callable[[Any, Tensor, Tensor], None]
"""Module, input and where the output goes."""


def _by_modality(modules: ByModality[Any], x: Tensor, width: int, split: int, apply: _Apply) -> Tensor:
    """Video rows through the video module, text rows, if any, through the text module; once where they share one."""
    out = x.new_empty((len(x), width))
    if modules.video is modules.text or len(x) == split:
        apply(modules.video, x, out)
    else:
        apply(modules.video, x[:split], out[:split])
        apply(modules.text, x[split:], out[split:])
    return out


def _project(linear: Any, x: Tensor, out: Tensor) -> None:
    if linear.bias is None:
        torch.mm(x, linear.weight.t(), out=out)
    else:
        torch.addmm(linear.bias, x, linear.weight.t(), out=out)


def _modulations(block: Block) -> Tensor:
    """(2 halves, 3 roles, 2 modalities, width) fp32 learned vectors."""
    return torch.stack(
        [
            torch.stack([torch.stack([_vector(ada, half, role) for ada in (block.ada.video, block.ada.text)]) for role in _ROLES])
            for half in ("attn", "mlp")
        ]
    )


_ROLES = ("shift", "scale", "gate")


def _vector(ada: Modulation, half: str, role: str) -> Tensor:
    return ada.get_parameter(f"{half}_{role}").float()


def _halves(learned: Tensor, emb: Tensor, *, bare_last_text: bool) -> list[tuple[_Half, _Half]]:
    """For each block, its attention and its MLP half; emb (width, 2, 3)."""
    added = learned + emb.permute(1, 2, 0)[None, :, :, None]
    if bare_last_text:
        added[-1, 0, 0, 1] = 0.0
        added[-1, 0, 1, 1] = 1.0
    return [(_Half(*attention), _Half(*mlp)) for attention, mlp in added]


def _norm_weights(attention: WindowAttention) -> Tensor:
    """(2, 2, head width) fp32: queries and keys, video and text."""
    return torch.stack(
        [torch.stack([norm.video.weight.float(), norm.text.weight.float()]) for norm in (attention.norm_q, attention.norm_k)]
    )


def _route(layout: AttentionLayout) -> _Route:
    windows = layout.windows
    tokens, words = len(layout.video_turns), len(layout.text_turns)
    sources = torch.empty(windows.rows, dtype=torch.int32, device=windows.video.device)
    sources[windows.video] = torch.arange(tokens, dtype=torch.int32, device=sources.device)
    sources[windows.text] = torch.arange(tokens, tokens + words, dtype=torch.int32, device=sources.device).repeat(windows.windows)
    turns = torch.view_as_real(torch.cat([layout.video_turns, layout.text_turns]))
    return _Route(layout=layout, sources=sources, turns=turns)
