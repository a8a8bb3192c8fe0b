"""How a widespread port cuts a clip into batches and fades from one into the next.

The service restores in one stream instead and never does so; these rules are here to compare with what the port gives.
"""

import math

import torch
from torch import Tensor


def batch_spans(frames: int, size: int, overlap: int) -> list[tuple[int, int]]:
    """[first, end) of each batch; consecutive ones share ``overlap`` frames. A batch that would bring nothing new is left out.

    An overlap as long as a batch counts as none.
    """
    if overlap >= size:
        overlap = 0
    spans = [(first, min(first + size, frames)) for first in range(0, frames, size - overlap)]
    fresh = [first == 0 or end - first > overlap for first, end in spans]
    return spans[: fresh.index(False)] if False in fresh else spans


def fade_weights(count: int) -> Tensor:
    """(count,) fp32 share of the earlier batch: a third all of it, a third of half a cosine, a third nothing."""
    if count < 3:
        return torch.tensor([1.0, 0.0][:count])
    middle = (3 * torch.linspace(0, 1, count) - 1).clamp(0, 1)
    return 0.5 + 0.5 * torch.cos(math.pi * middle)


def cross_fade(earlier: Tensor, later: Tensor) -> Tensor:
    """Frames that two batches share, (n, …) each, from the earlier batch to the later one."""
    weights = fade_weights(len(earlier)).to(earlier).view(-1, *[1] * (earlier.ndim - 1))
    return weights * earlier + (1 - weights) * later
