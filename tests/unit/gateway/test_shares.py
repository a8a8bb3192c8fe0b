import pytest

from services.gateway.shares import HALF_LIFE_S, Shares


def test_what_owners_got_adds_up_and_fades():
    shares = Shares()
    shares.charge("a", 100, 0)
    shares.charge("a", 50, HALF_LIFE_S)
    shares.charge("b", 10, HALF_LIFE_S)
    assert shares.recent(HALF_LIFE_S) == {"a": 100, "b": 10}
    assert shares.recent(2 * HALF_LIFE_S) == pytest.approx({"a": 50, "b": 5})


def test_owners_of_long_ago_are_forgotten():
    shares = Shares()
    shares.charge("a", 100, 0)
    assert shares.recent(30 * HALF_LIFE_S) == {}
