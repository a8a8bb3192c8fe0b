"""Rotary position embedding of queries and keys: a position on each of three axes, restarting in every window.

Adjacent channels (2p, 2p + 1) of a head are a complex number that is turned by position times frequency. The first third of
the rotated channels turns with time, the second with height, the third with width; a remainder passes through. There are two
schemes: steps are counted, for text too, with frequencies as language models have them; or a window goes from -1 to 1 on each
axis and text is not turned ("pixel").
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from services.inference.gpu.model.windows import Cut


def axis_frequencies(rope_width: int, *, pixel: bool) -> Tensor:
    """(F,) fp32 angles for a position of 1 on one axis. Always computed: half-precision files hold them too coarsely."""
    channels = rope_width // 3
    if pixel:
        return torch.pi * torch.linspace(1.0, 128.0, channels // 2)
    return 10000.0 ** (-2.0 * torch.arange(channels // 2, dtype=torch.float32) / channels)


def local_positions(cuts: list[Cut], *, pixel: bool) -> Tensor:
    """(length,) fp32 position of each step of an axis within its window: its index, or from -1 to 1; a single one is at -1."""
    lengths = [end - first for first, end in cuts]
    if pixel:
        return torch.cat([torch.linspace(-1.0, 1.0, length) for length in lengths])
    return torch.cat([torch.arange(length, dtype=torch.float32) for length in lengths])


def video_turns(cuts: Sequence[list[Cut]], text_tokens: int, rope_width: int, head_width: int, *, pixel: bool) -> Tensor:
    """(L, head_width / 2) complex turn of every video token, in grid order.

    Where text is turned it takes the first positions in time, so video starts after it.
    """
    time, height, width = (local_positions(axis, pixel=pixel) for axis in cuts)
    grid = (len(time), len(height), len(width))
    frequencies = axis_frequencies(rope_width, pixel=pixel)
    start = 0 if pixel else text_tokens
    angles = [torch.outer(positions, frequencies) for positions in (time + start, height, width)]
    along = (angles[0][:, None, None], angles[1][None, :, None], angles[2][None, None, :])
    return _turns([angle.expand(*grid, -1) for angle in along], head_width).flatten(0, 2)


def text_turns(text_tokens: int, rope_width: int, head_width: int, *, pixel: bool) -> Tensor:
    """(l, head_width / 2) complex turn of every text token: its index on all three axes, or none."""
    if pixel:
        return torch.ones((text_tokens, head_width // 2), dtype=torch.complex64)
    angles = torch.outer(torch.arange(text_tokens, dtype=torch.float32), axis_frequencies(rope_width, pixel=False))
    return _turns([angles, angles, angles], head_width)


def _turns(angles: list[Tensor], head_width: int) -> Tensor:
    joined = torch.cat(angles, dim=-1)
    turns = torch.polar(torch.ones_like(joined), joined)
    rest = turns.new_ones((*turns.shape[:-1], head_width // 2 - turns.shape[-1]))
    return torch.cat([turns, rest], dim=-1)


def rotate(x: Tensor, turns: Tensor) -> Tensor:
    """Turn (rows, heads, head width) by (rows, head width / 2), in fp32. Overwrites a contiguous fp32 ``x``."""
    pairs = torch.view_as_complex(x.float().view(*x.shape[:-1], x.shape[-1] // 2, 2))
    return torch.view_as_real(pairs.mul_(turns[:, None])).flatten(-2).to(x.dtype)
