"""Give a set of values the distribution of another one."""

import torch
from torch import Tensor


def match_histogram(values: Tensor, reference: Tensor) -> Tensor:
    """Replace the i-th smallest value by the reference's value of the same rank.

    Equal values are ranked by their position, so that the result is the same each time; they may come out different.

    Args:
        values: any shape, n values.
        reference: any shape, at least one value.

    Returns:
        The shape of ``values``.
    """
    wanted = reference.flatten().sort().values
    ranks = values.flatten().argsort(stable=True)
    if len(ranks) != len(wanted):
        # Ranks in fp32 like those that the reference numbers were made with.
        shares = torch.linspace(0.0, 1.0, len(ranks), device=values.device)
        wanted = wanted[(shares * (len(wanted) - 1)).long()]
    return torch.empty_like(wanted).scatter_(0, ranks, wanted).view(values.shape)
