"""Which tokens attend to each other: windows over the grid of video tokens.

A window's size follows from the aspect ratio, as if the frame had the area of a 720p one, and hardly from the resolution:
larger frames have more windows, not larger ones.
"""

import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from services.inference.gpu.model.kernels import Packing, Run

Grid = tuple[int, int, int]
"""Video tokens along (time, height, width)."""

Cut = tuple[int, int]
"""[first, end) along one axis."""

_REFERENCE_AREA = 45 * 80
_LONGEST_CLIP = 30


class Window(NamedTuple):
    """Tokens [first, end) on each axis."""

    time: Cut
    height: Cut
    width: Cut

    @property
    def tokens(self) -> int:
        """How many tokens it holds."""
        return math.prod(end - first for first, end in self)


def window_size(grid: Grid, counts: Grid) -> Grid:
    """Tokens of a full window along each axis."""
    frames, height, width = grid
    scale = math.sqrt(_REFERENCE_AREA / (height * width))
    sides = min(frames, _LONGEST_CLIP), round(height * scale), round(width * scale)
    return tuple(math.ceil(side / count) for side, count in zip(sides, counts, strict=True))  # type: ignore[return-value]


def cut_axis(length: int, window: int, *, shifted: bool) -> list[Cut]:
    """Cut an axis into windows; shifted ones start half a window earlier and are clipped at the borders."""
    shift = 0.5 if shifted and window < length else 0.0
    count = math.ceil((length - shift) / window) + (1 if shift else 0)
    edges = [min(max(math.trunc((i - shift) * window), 0), length) for i in range(count + 1)]
    return [(first, end) for first, end in itertools.pairwise(edges) if first < end]


def cut_grid(grid: Grid, counts: Grid, *, shifted: bool) -> tuple[list[Cut], list[Cut], list[Cut]]:
    """The cuts of each axis; every combination of them is a window."""
    size = window_size(grid, counts)
    time, height, width = (cut_axis(length, side, shifted=shifted) for length, side in zip(grid, size, strict=True))
    return time, height, width


def list_windows(cuts: Sequence[list[Cut]]) -> list[Window]:
    """All windows, width outermost, then height, then time."""
    time, height, width = cuts
    return [Window(t, h, w) for w in width for h in height for t in time]


_NO_TOKENS = Window((0, 0), (0, 0), (0, 0))


class WindowLayout:
    """Where rows stand when each window's video tokens, then all text tokens, lie side by side.

    Windows of equal size are neighbours, so that attention can take them in one batch. Made once for a grid and used by
    every block of the same parity. The windows may be some of the grid's; if there are none, text attends to itself.
    """

    def __init__(self, grid: Grid, windows: Sequence[Window], text_tokens: int, device: torch.device) -> None:
        windows = sorted(windows, key=lambda window: window.tokens) or [_NO_TOKENS]
        lengths = [window.tokens + text_tokens for window in windows]
        starts = [0, *itertools.accumulate(lengths)]
        rows = torch.full(grid, -1)
        for start, window in zip(starts, windows, strict=False):
            t, h, w = (slice(*cut) for cut in window)
            rows[t, h, w] = torch.arange(start, start + window.tokens).view_as(rows[t, h, w])
        ends = torch.tensor(starts[1:])[:, None]
        held = rows.flatten().ge(0).nonzero().flatten()
        self.windows = len(windows)
        self.rows = starts[-1]
        self.held = held.to(device)
        """(H,) video tokens of these windows, in grid order."""
        self.video = rows.flatten()[held].to(device)
        """(H,) row of each of them."""
        self.text = (ends - text_tokens + torch.arange(text_tokens)).flatten().to(device)
        """(windows · text tokens,) rows of the text tokens, window by window."""
        runs = tuple(Run(len(list(same)), length) for length, same in itertools.groupby(lengths))
        self.packing = Packing(runs, device)

    def pack(self, video: Tensor, text: Tensor) -> Tensor:
        """(H, …) video and (l, …) text tokens to (rows, …); text is repeated for every window."""
        packed = video.new_empty((self.rows, *video.shape[1:]))
        packed.index_copy_(0, self.video, video)
        return packed.index_copy_(0, self.text, text.repeat(self.windows, *[1] * (text.ndim - 1)))

    def unpack(self, packed: Tensor, *, text: bool = True) -> Tensor:
        """(rows, …) to (H + l, …): video tokens in grid order, then the mean of text over windows, each weighing the same."""
        video, words = len(self.video), len(self.text) // self.windows if text else 0
        out = packed.new_empty((video + words, *packed.shape[1:]))
        torch.index_select(packed, 0, self.video, out=out[:video])
        if text:
            out[video:] = packed.index_select(0, self.text).view(self.windows, words, *packed.shape[1:]).mean(0)
        return out
