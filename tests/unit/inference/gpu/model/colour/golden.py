"""How close rank statistics come to the reference: near-equal values may swap their ranks."""

from torch import Tensor

_MOST, _WORST = 1e-4, 0.01


def assert_close_but_for_ranks(ours: Tensor, golden: Tensor) -> None:
    """99.5 % of the values within 1e-4, every one within 0.01."""
    error = (ours - golden).abs().flatten()
    most, worst = float(error.quantile(0.995)), float(error.max())
    assert ours.shape == golden.shape
    assert most <= _MOST, f"99.5 % of the values are within {most}"
    assert worst <= _WORST, f"the worst value is {worst} away"
