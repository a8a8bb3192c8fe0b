import pytest
import torch

from bench.parity.measure import Pair, Tolerance, agree, compare, thinned


def test_differences_are_measured_over_all_tensors_of_a_case() -> None:
    pairs = [Pair(torch.tensor([3.0, 0.0]), torch.tensor([3.0, 4.0])), Pair(torch.tensor([12.5]), torch.tensor([12.0]))]
    row = compare("case", pairs, Tolerance(atol=4.0))
    assert (row.tensors, row.largest, row.passed) == (2, 4.0, True)
    assert row.relative == pytest.approx((4**2 + 0.5**2) ** 0.5 / 13)


@pytest.mark.parametrize(
    ("tolerance", "passed"),
    [
        (Tolerance(atol=0.6), True),
        (Tolerance(atol=0.4), False),
        (Tolerance(rtol=0.06), True),
        (Tolerance(rtol=0.04), False),
        (Tolerance(relative=0.06), True),
        (Tolerance(relative=0.04), False),
    ],
)
def test_tolerances_are_absolute_relative_or_of_the_whole(tolerance: Tolerance, passed: bool) -> None:
    assert compare("case", [Pair(torch.tensor([10.5]), torch.tensor([10.0]))], tolerance).passed is passed


def test_a_few_elements_may_be_further_off_but_not_by_any_distance() -> None:
    pair = Pair(torch.cat([torch.zeros(99), torch.full((1,), 0.5)]), torch.zeros(100))
    assert compare("case", [pair], Tolerance(atol=0.1, outliers=0.01, worst=1.0)).passed
    assert not compare("case", [pair], Tolerance(atol=0.1, outliers=0.009, worst=1.0)).passed
    assert not compare("case", [pair], Tolerance(atol=0.1, outliers=0.01, worst=0.4)).passed


@pytest.mark.parametrize(
    "pairs", [[], [Pair(torch.zeros(2), torch.zeros(3))], [Pair(torch.tensor([float("nan")]), torch.zeros(1))]]
)
@pytest.mark.parametrize("tolerance", [Tolerance(atol=1e9), Tolerance(relative=1e9)])
def test_nothing_other_shapes_and_no_numbers_fail(pairs: list[Pair], tolerance: Tolerance) -> None:
    row = compare("case", pairs, tolerance)
    assert not row.passed
    assert row.largest == float("inf")


def test_tables_agree_or_do_not() -> None:
    assert agree("case", [([1, 2], [1, 2]), (3, 3)]).passed
    assert not agree("case", [([1, 2], [1, 3])]).passed
    assert not agree("case", []).passed


def test_thinning_keeps_what_the_golden_has() -> None:
    x = torch.randn(5, 42, 46, 16)
    assert thinned(x, torch.empty(5, 14, 10, 16)).equal(x[:, ::3, ::5])
    assert thinned(x, torch.empty(3, 42, 46, 16)).equal(x[::2])
    assert thinned(x, x).equal(x)
