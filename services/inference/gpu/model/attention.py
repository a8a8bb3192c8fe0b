"""Window attention over video and text, and weights that video and text have apart or share."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

from services.inference.gpu.model.kernels import Kernels
from services.inference.gpu.model.rope import rotate, text_turns, video_turns
from services.inference.gpu.model.spec import DitSpec
from services.inference.gpu.model.windows import Grid, Window, WindowLayout, cut_grid, list_windows
from services.inference.gpu.parallel.mesh import Mesh
from services.inference.gpu.parallel.sequence import Exchange, HeadExchange, WindowExchange, assign

M = TypeVar("M", bound=nn.Module)


class ByModality(nn.Module, Generic[M]):
    """A module for video (``vid``) and one for text (``txt``), or one that both share (``all``)."""

    def __init__(self, make: Callable[[], M], *, split: bool) -> None:
        super().__init__()
        for name in ("vid", "txt") if split else ("all",):
            self.add_module(name, make())
        self._names = ("vid", "txt") if split else ("all", "all")

    @property
    def video(self) -> M:
        """What video tokens go through."""
        return self.get_submodule(self._names[0])  # type: ignore[return-value]

    @property
    def text(self) -> M:
        """What text tokens go through."""
        return self.get_submodule(self._names[1])  # type: ignore[return-value]


class RmsNorm(nn.Module):
    """RMS norm with a weight."""

    def __init__(self, width: int, eps: float, kernels: Kernels) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width))
        self._eps = eps
        self._kernel = kernels.rms_norm

    def forward(self, x: Tensor) -> Tensor:
        """Same shape, fresh."""
        return self._kernel(x, self.weight, self._eps)


class _StoredFrequencies(nn.Module):
    """Checkpoints hold the rotary frequencies of every block; the key must be there, the values are never read."""

    def __init__(self, rope_width: int) -> None:
        super().__init__()
        self.rope = nn.Module()
        self.rope.register_buffer("freqs", torch.empty(rope_width // 3 // 2))


@dataclass(frozen=True, slots=True, eq=False)
class AttentionLayout:
    """What attention needs to know about a grid; the same for all blocks of one parity."""

    windows: WindowLayout
    """Who attends to whom."""

    exchange: Exchange
    """How tokens get to the rank that has their window, and back."""

    video_turns: Tensor
    """(H, head width / 2) complex rotary turns of the video tokens held for these windows."""

    text_turns: Tensor
    """(l, head width / 2)."""


def lay_out(spec: DitSpec, grid: Grid, text_tokens: int, *, shifted: bool, device: torch.device, mesh: Mesh) -> AttentionLayout:
    """Windows and rotary turns for a grid of video tokens, as far as they concern this rank."""
    cuts, pixel = cut_grid(grid, spec.window_counts, shifted=shifted), spec.pixel_rotary
    windows, exchange = _share_out(spec, grid, list_windows(cuts), device, mesh)
    layout = WindowLayout(grid, windows, text_tokens, device)
    turns = video_turns(cuts, text_tokens, spec.rope_width, spec.head_width, pixel=pixel).to(device)
    return AttentionLayout(
        windows=layout,
        exchange=exchange,
        video_turns=turns.index_select(0, layout.held),
        text_turns=text_turns(text_tokens, spec.rope_width, spec.head_width, pixel=pixel).to(device),
    )


def _share_out(
    spec: DitSpec, grid: Grid, windows: list[Window], device: torch.device, mesh: Mesh
) -> tuple[list[Window], Exchange]:
    """The windows that this rank attends in."""
    if spec.heads % mesh.size == 0:
        return windows, HeadExchange(mesh, math.prod(grid), spec.heads)
    owners = assign([window.tokens for window in windows], mesh.size)
    of_tokens = torch.empty(grid, dtype=torch.int64)
    for window, owner in zip(windows, owners, strict=True):
        t, h, w = (slice(*cut) for cut in window)
        of_tokens[t, h, w] = owner
    own = [window for window, owner in zip(windows, owners, strict=True) if owner == mesh.rank]
    return own, WindowExchange(mesh, of_tokens.flatten().to(device), spec.heads, len(own) / len(windows))


class WindowAttention(nn.Module):
    """Each window's video tokens and all text tokens attend to each other."""

    def __init__(self, spec: DitSpec, kernels: Kernels, *, split: bool) -> None:
        super().__init__()
        width, head = spec.width, spec.head_width
        self.proj_qkv = ByModality(lambda: nn.Linear(width, 3 * width, bias=False), split=split)
        self.proj_out = ByModality(lambda: nn.Linear(width, width), split=split)
        self.norm_q = ByModality(lambda: RmsNorm(head, spec.norm_eps, kernels), split=split)
        self.norm_k = ByModality(lambda: RmsNorm(head, spec.norm_eps, kernels), split=split)
        self.rope = _StoredFrequencies(spec.rope_width)
        self._attend = kernels.attend

    def forward(self, video: Tensor, text: Tensor, layout: AttentionLayout) -> tuple[Tensor, Tensor]:
        """(L, width) and (l, width) to the same, output projection included."""
        windows, exchange = layout.windows, layout.exchange
        qkv = exchange.to_windows(torch.cat([self.proj_qkv.video(video), self.proj_qkv.text(text)]))
        qkv = qkv.view(len(qkv), 3, exchange.heads, -1)
        held = len(windows.held)
        of_video = _queries_keys_values(qkv[:held], self.norm_q.video, self.norm_k.video, layout.video_turns)
        of_text = _queries_keys_values(qkv[held:], self.norm_q.text, self.norm_k.text, layout.text_turns)
        q, k, v = (windows.pack(a, b) for a, b in zip(of_video, of_text, strict=True))
        rows = exchange.to_tokens(windows.unpack(self._attend(q, k, v, windows.packing).flatten(1)))
        return self.proj_out.video(rows[: len(video)]), self.proj_out.text(rows[len(video) :])


def _queries_keys_values(qkv: Tensor, norm_q: RmsNorm, norm_k: RmsNorm, turns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    q, k, v = qkv.unbind(1)
    return rotate(norm_q(q), turns), rotate(norm_k(k), turns), v
