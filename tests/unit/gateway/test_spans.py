import pytest

from services.common.errors import GpuOutOfMemory, QueueFull, WorkerBroken
from services.gateway.spans import _Tries, restores_leaner


def test_tries_end_with_the_last_error_and_how_often_it_happened():
    tries = _Tries(3)
    tries.next_pause(WorkerBroken("one."), went_on=False)
    tries.next_pause(WorkerBroken("two."), went_on=False)
    with pytest.raises(GpuOutOfMemory, match=r"failed 3 times, at last so: three\."):
        tries.next_pause(GpuOutOfMemory("three."), went_on=False)


def test_a_span_that_goes_on_is_tried_for_ever():
    tries = _Tries(2)
    for _ in range(100):
        tries.next_pause(WorkerBroken("x"), went_on=True)


def test_a_worker_that_has_no_room_is_no_failure():
    tries = _Tries(1)
    assert tries.next_pause(QueueFull("full", retry_after_s=7), went_on=False) == 7
    assert tries.failed == 0


def test_a_worker_that_asks_for_the_span_again_to_restore_it_with_less_memory_has_not_failed_it():
    tries, leaner = _Tries(1), GpuOutOfMemory("too large", retry_after_s=0.2)
    assert restores_leaner(leaner)
    assert not restores_leaner(GpuOutOfMemory("too large"))
    assert tries.next_pause(leaner, went_on=False) >= 0.2
    assert tries.failed == 0
    with pytest.raises(GpuOutOfMemory):
        tries.next_pause(leaner, went_on=False)


def test_pauses_grow_and_begin_anew_when_something_was_stored():
    tries = _Tries(9)
    pauses = [tries.next_pause(WorkerBroken("x"), went_on=False) for _ in range(4)]
    assert pauses == sorted(pauses)
    assert pauses[3] == 8 * pauses[0]
    assert tries.next_pause(WorkerBroken("x"), went_on=True) == pauses[0]
