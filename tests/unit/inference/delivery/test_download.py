"""How patience ends. Whole downloads: tests/integration/test_delivery.py."""

import time

import pytest

from services.common.errors import Unavailable
from services.inference.delivery.download import Tries
from services.inference.delivery.settings import DeliverySettings


def pauses_s(tries: Tries, *errors: Unavailable) -> list[float]:
    taken = []
    for error in errors:
        before = time.monotonic()
        tries.pause(error)
        taken.append(time.monotonic() - before)
    return taken


def test_pauses_grow_to_a_limit():
    tries = Tries(DeliverySettings(tries=9, pause_s=0.02, longest_pause_s=0.08))
    first, second, third, fourth = pauses_s(tries, *[Unavailable("gone.")] * 4)
    assert 0.015 <= first < second < third
    assert fourth >= 0.06


def test_a_pause_that_is_asked_for_is_made():
    (taken,) = pauses_s(Tries(DeliverySettings(pause_s=0)), Unavailable("busy.", retry_after_s=0.1))
    assert taken >= 0.1


def test_the_last_try_ends_in_the_error_and_success_begins_the_count_anew():
    tries = Tries(DeliverySettings(tries=3, pause_s=0))
    pauses_s(tries, Unavailable("gone."), Unavailable("gone."))
    tries.renew()
    pauses_s(tries, Unavailable("gone."), Unavailable("gone."))
    with pytest.raises(Unavailable, match=r"gone\. Given up after 3 tries") as error:
        tries.pause(Unavailable("gone.", retry_after_s=7))
    assert error.value.retry_after_s == 7
