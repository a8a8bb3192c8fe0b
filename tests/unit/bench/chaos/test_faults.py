from collections import Counter

from bench.chaos.faults import Kind, Shape, draw


def test_equal_seeds_give_equal_faults_and_others_give_others():
    assert draw(7, 40, 60.0) == draw(7, 40, 60.0)
    assert draw(7, 40, 60.0) != draw(8, 40, 60.0)


def test_every_kind_comes_about_equally_often_and_in_its_time():
    drawn = draw(3, 3 * len(Kind) + 5, 600.0)
    counts = Counter(fault.kind for fault in drawn)
    assert set(counts) == set(Kind)
    assert set(counts.values()) == {3, 4}
    assert [fault.at_s for fault in drawn] == sorted(fault.at_s for fault in drawn)
    assert all(0 <= fault.at_s <= 600 for fault in drawn)


def test_faults_are_where_something_is():
    shape = Shape(gateways=2, workers=3, ranks=1)
    for fault in draw(5, 300, 60.0, shape):
        assert 0 <= fault.gateway < 2
        assert 0 <= fault.worker < 4
        assert fault.kind is not Kind.RANK_KILLED or fault.worker == 3
        assert fault.kind is not Kind.CLOCK_JUMP or fault.gateway == 1


def test_without_a_model_no_rank_is_killed():
    assert Kind.RANK_KILLED not in {fault.kind for fault in draw(1, 100, 60.0, Shape(ranks=0))}


def test_two_faults_of_one_place_have_its_name_in_common():
    places = {fault.kind: fault.place for fault in draw(2, 200, 60.0, Shape(gateways=1, workers=1, ranks=0))}
    assert places[Kind.GATEWAY_KILLED] == places[Kind.GATEWAY_STOPPED] == "gateway 0"
    assert places[Kind.STORE_KILLED] == places[Kind.STORE_SLOW] == places[Kind.CUT_FROM_STORE]
    assert places[Kind.CUT_FROM_WORKER] == "way from gateway 0 to worker 0"
