import pytest

from services.gateway.fleet.endpoints import Endpoint, joined, split_address


def test_an_address_is_taken_apart():
    assert [split_address(a) for a in ("h:1", "[::1]:65535", "h:65536", "[h]:1")] == [("h", 1), ("::1", 65535), None, None]


def test_of_two_finders_that_found_a_worker_the_first_knows_better():
    mine, theirs = Endpoint(address="h:1", pool="a"), Endpoint(address="h:1", pool="b", terminating=True)
    assert joined([[mine], [theirs, Endpoint(address="h:2")]]) == {"h:1": mine, "h:2": Endpoint(address="h:2")}


@pytest.mark.parametrize(
    ("ready", "terminating", "known"), [(True, False, ""), (False, False, "starting"), (True, True, "draining")]
)
def test_a_finder_knows_whether_a_worker_may_get_spans(ready: bool, terminating: bool, known: str):
    assert Endpoint(address="h:1", ready=ready, terminating=terminating).known_as == known
