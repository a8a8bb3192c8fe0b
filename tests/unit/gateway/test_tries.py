import pytest

from services.common.errors import (
    DeadlinePassed,
    Draining,
    GpuOutOfMemory,
    QueueFull,
    ServiceError,
    SpanFatal,
    WorkerBroken,
    WorkerUnavailable,
)
from services.gateway.tries import Tries, restores_leaner


def pause(tries: Tries, error: ServiceError, address: str = "w", *, went_on: bool = False, chance: float = 0.0) -> float:
    return tries.next_pause(error, address, went_on=went_on, chance=chance)


def test_tries_end_with_the_last_error_and_how_often_it_happened():
    tries = Tries(3)
    pause(tries, WorkerBroken("one."))
    pause(tries, WorkerBroken("two."))
    with pytest.raises(GpuOutOfMemory, match=r"A part of the video failed 3 times, at last so: three\."):
        pause(tries, GpuOutOfMemory("three."))


def test_a_span_that_goes_on_is_tried_for_ever():
    tries = Tries(2)
    for number in range(100):
        pause(tries, WorkerBroken("x"), f"w{number}", went_on=True)


@pytest.mark.parametrize(
    "error", [QueueFull("full", retry_after_s=7), Draining("x", retry_after_s=7), WorkerUnavailable("x", retry_after_s=7)]
)
def test_a_worker_that_has_no_room_or_was_never_reached_is_no_failure(error: ServiceError):
    tries = Tries(1)
    assert pause(tries, error) == 7
    assert (tries.failed, tries.lost) == (0, ())


def test_a_worker_that_asks_for_the_span_again_to_restore_it_with_less_memory_has_not_failed_it():
    tries, leaner = Tries(1), GpuOutOfMemory("too large", retry_after_s=0.2)
    assert restores_leaner(leaner)
    assert not restores_leaner(GpuOutOfMemory("too large"))
    assert pause(tries, leaner) >= 0.2
    assert tries.failed == 0
    with pytest.raises(GpuOutOfMemory):
        pause(tries, leaner)


def test_pauses_grow_and_begin_anew_when_something_was_stored():
    tries = Tries(9)
    pauses = [pause(tries, WorkerBroken("x")) for _ in range(4)]
    assert pauses == sorted(pauses)
    assert pauses[3] == 8 * pauses[0]
    assert pause(tries, WorkerBroken("x"), went_on=True) == pauses[0]


def test_chance_keeps_what_failed_together_from_coming_back_together():
    assert pause(Tries(9), WorkerBroken("x"), chance=0.5) == 1.5 * pause(Tries(9), WorkerBroken("x"))


def test_a_span_that_took_three_workers_along_is_not_tried_again():
    tries = Tries(9, what="The part from frame 8 to 16")
    pause(tries, WorkerBroken("x"), "w1")
    pause(tries, WorkerBroken("x"), "w1")
    pause(tries, WorkerBroken("x"), "w2")
    with pytest.raises(SpanFatal, match=r"frame 8 to 16 took 3 workers along \(w1, w2, w3\).*: killed"):
        pause(tries, WorkerBroken("killed"), "w3")


def test_workers_that_an_earlier_gateway_lost_count():
    with pytest.raises(SpanFatal):
        pause(Tries(9, lost=("w1", "w2")), WorkerBroken("x"), "w3")


def test_memory_and_time_take_no_worker_along():
    tries = Tries(9)
    for number, error in enumerate([GpuOutOfMemory("x"), DeadlinePassed("x"), Draining("x"), QueueFull("x")]):
        pause(tries, error, f"w{number}")
    assert tries.lost == ()


def test_a_span_that_went_on_begins_to_count_anew():
    tries = Tries(9, lost=("w1", "w2"))
    pause(tries, WorkerBroken("x"), "w3", went_on=True)
    assert tries.lost == ("w3",)
