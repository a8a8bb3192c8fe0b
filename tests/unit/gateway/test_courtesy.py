from services.gateway.courtesy import Courtesy


def test_a_gateway_alone_takes_a_worker_again_at_once():
    courtesy = Courtesy(2.0)
    assert courtesy.release("w", 10, 0.5) == 0
    assert courtesy.left_alone(10) == frozenset()


def test_where_others_use_the_workers_one_that_was_given_back_is_left_alone_for_a_moment():
    courtesy = Courtesy(2.0)
    courtesy.see_others(5)
    assert courtesy.release("w", 10, 0.5) == 1.0
    assert courtesy.left_alone(10.9) == {"w"}
    assert courtesy.left_alone(11.1) == frozenset()


def test_others_that_were_not_seen_for_long_are_forgotten():
    courtesy = Courtesy(2.0)
    courtesy.see_others(5)
    assert courtesy.release("w", 100, 0.5) == 0
