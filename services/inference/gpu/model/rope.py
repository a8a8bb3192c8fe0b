"""Rotary position embedding of queries and keys: a position on each of three axes, restarting in every window.

Adjacent channels (2p, 2p + 1) of a head are a complex number that is turned by position times frequency. The first third of
the rotated channels turns with time, the second with height, the third with width; a remainder passes through.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from services.inference.gpu.model.windows import Cut


def axis_frequencies(rope_width: int) -> Tensor:
    """(F,) fp32 angles a step on one axis. Always computed: half-precision files hold them too coarsely."""
    channels = rope_width // 3
    return 10000.0 ** (-2.0 * torch.arange(channels // 2, dtype=torch.float32) / channels)


def local_positions(cuts: list[Cut]) -> Tensor:
    """(length,) fp32 position of each step of an axis within its window."""
    return torch.cat([torch.arange(end - first, dtype=torch.float32) for first, end in cuts])


def video_turns(cuts: Sequence[list[Cut]], text_tokens: int, rope_width: int, head_width: int) -> Tensor:
    """(L, head_width / 2) complex turn of every video token, in grid order.

    Text takes the first positions in time, so video starts after it.
    """
    time, height, width = (local_positions(axis) for axis in cuts)
    grid = (len(time), len(height), len(width))
    frequencies = axis_frequencies(rope_width)
    angles = [torch.outer(positions, frequencies) for positions in (time + text_tokens, height, width)]
    along = (angles[0][:, None, None], angles[1][None, :, None], angles[2][None, None, :])
    return _turns([angle.expand(*grid, -1) for angle in along], head_width).flatten(0, 2)


def text_turns(text_tokens: int, rope_width: int, head_width: int) -> Tensor:
    """(l, head_width / 2) complex turn of every text token: its index on all three axes."""
    angles = torch.outer(torch.arange(text_tokens, dtype=torch.float32), axis_frequencies(rope_width))
    return _turns([angles, angles, angles], head_width)


def _turns(angles: list[Tensor], head_width: int) -> Tensor:
    joined = torch.cat(angles, dim=-1)
    turns = torch.polar(torch.ones_like(joined), joined)
    rest = turns.new_ones((*turns.shape[:-1], head_width // 2 - turns.shape[-1]))
    return torch.cat([turns, rest], dim=-1)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn (rows, heads, head width) by (rows, head width / 2), in fp32. Overwrites a contiguous fp32 ``x``."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], -1, 2))
    return torch.view_as_real(pairs.mul_(turns[:, None])).flatten(-2).to(x.dtype)
