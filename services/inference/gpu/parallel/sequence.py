"""Tokens of a clip divided among ranks, and how ranks attend together.

Each rank holds a run of the video tokens, in grid order, and all text tokens, which are few. Attention needs other tokens
beside its own. Where the heads can be divided, a rank takes its part of them over all tokens (Ulysses); where they can't, it
takes all heads over the tokens of some whole windows. Either way tokens travel there before attention and back after it.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from services.inference.gpu.parallel.mesh import Mesh


def divide(total: int, parts: int) -> list[int]:
    """Nearly equal whole parts, the larger ones first."""
    return [total // parts + (part < total % parts) for part in range(parts)]


def own_part(x: Tensor, mesh: Mesh) -> Tensor:
    """This rank's rows of (rows, …)."""
    return torch.split(x, divide(len(x), mesh.size))[mesh.rank]


def join_parts(x: Tensor, rows: int, mesh: Mesh) -> Tensor:
    """All ``rows`` of what every rank has its own part of."""
    return mesh.all_gather(x, divide(rows, mesh.size))


def assign(costs: Sequence[int], ranks: int) -> list[int]:
    """The rank of each job, so that all have about the same to do: the next largest job goes to whoever has the least."""
    loads, owners = [0] * ranks, [0] * len(costs)
    for job in sorted(range(len(costs)), key=lambda job: -costs[job]):
        owner = loads.index(min(loads))
        owners[job] = owner
        loads[owner] += costs[job]
    return owners


class Exchange(Protocol):
    """The way of tokens to where they meet others, and back. Text tokens stand behind video tokens."""

    heads: int
    """Heads that this rank attends with."""

    def to_windows(self, qkv: Tensor) -> Tensor:
        """(own video + text, 3 · width) projections to (video held for attention + text, 3 · width of these heads)."""

    def to_tokens(self, attended: Tensor) -> Tensor:
        """(video held for attention, width of these heads) to (own video, width).

        Text may stand behind, its mean over the windows of this rank. Its mean over all windows is then given back.
        """


class HeadExchange:
    """All tokens meet on every rank, each with a part of the heads. On one rank nothing moves."""

    def __init__(self, mesh: Mesh, tokens: int, heads: int) -> None:
        self.heads = heads // mesh.size
        self._mesh = mesh
        self._held = tokens
        self._counts = divide(tokens, mesh.size)

    def to_windows(self, qkv: Tensor) -> Tensor:
        """See :class:`Exchange`."""
        mesh, own = self._mesh, self._counts[self._mesh.rank]
        if mesh.size == 1:
            return qkv
        by_rank = qkv.view(len(qkv), 3, mesh.size, -1).permute(2, 0, 1, 3)
        part = 3 * by_rank.shape[-1]
        out = qkv.new_empty((self._held + len(qkv) - own, part))
        mesh.all_to_all(by_rank[:, :own].reshape(-1, part), [own] * mesh.size, self._counts, out=out[: self._held])
        out[self._held :] = by_rank[mesh.rank, own:].flatten(1)
        return out

    def to_tokens(self, attended: Tensor) -> Tensor:
        """See :class:`Exchange`."""
        mesh, own = self._mesh, self._counts[self._mesh.rank]
        if mesh.size == 1:
            return attended
        text = attended[self._held :]
        width = attended.shape[1]
        out = attended.new_empty((own + len(text), mesh.size, width))
        parts = mesh.all_to_all(attended[: self._held], self._counts, [own] * mesh.size)
        out[:own] = parts.view(mesh.size, own, width).transpose(0, 1)
        if len(text):
            gathered = mesh.all_gather(text, [len(text)] * mesh.size)
            out[own:] = gathered.view(mesh.size, len(text), width).transpose(0, 1)
        return out.flatten(1)


class WindowExchange:
    """Whole windows meet on a rank each, with all heads."""

    def __init__(self, mesh: Mesh, owners: Tensor, heads: int, share: float) -> None:
        """``owners`` (L,): the rank that each video token's window is on; ``share``: of all windows, those on this rank."""
        self.heads = heads
        self._mesh = mesh
        self._share = share
        parts = [torch.bincount(part, minlength=mesh.size) for part in torch.split(owners, divide(len(owners), mesh.size))]
        self._send: list[int] = parts[mesh.rank].tolist()
        self._receive = [int(part[mesh.rank]) for part in parts]
        self._order = own_part(owners, mesh).argsort(stable=True)
        self._back = self._order.argsort()

    def to_windows(self, qkv: Tensor) -> Tensor:
        """See :class:`Exchange`."""
        own, held = len(self._order), sum(self._receive)
        out = qkv.new_empty((held + len(qkv) - own, qkv.shape[1]))
        self._mesh.all_to_all(qkv.index_select(0, self._order), self._send, self._receive, out=out[:held])
        out[held:] = qkv[own:]
        return out

    def to_tokens(self, attended: Tensor) -> Tensor:
        """See :class:`Exchange`."""
        own, held = len(self._order), sum(self._receive)
        text = attended[held:]
        out = attended.new_empty((own + len(text), attended.shape[1]))
        came = self._mesh.all_to_all(attended[:held], self._receive, self._send)
        torch.index_select(came, 0, self._back, out=out[:own])
        if len(text):
            out[own:] = self._mesh.all_reduce(text.float() * self._share)
        return out
