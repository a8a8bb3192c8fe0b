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


def test_what_a_worker_says_soon_after_a_span_of_ours_is_no_news_of_others():
    courtesy = Courtesy(2.0)
    courtesy.release("w", 10, 0.5)
    courtesy.see_others(12, "w")
    assert courtesy.release("w", 13, 0.5) == 0
    courtesy.see_others(20, "w")
    assert courtesy.release("w", 21, 0.5) == 1.0


def test_others_that_were_not_seen_for_long_are_forgotten():
    courtesy = Courtesy(2.0)
    courtesy.see_others(5)
    assert courtesy.release("w", 100, 0.5) == 0
