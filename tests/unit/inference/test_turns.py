from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import QueueFull
from services.common.metrics import InferenceMetrics
from services.inference.groups import Groups
from services.inference.messages import LoadOrder, RankReady
from services.inference.ranks import RankLimits
from services.inference.turns import Turns

READY = RankReady(
    facts={}, device="", dtype="", weight_format="", parameters=0, sha256={}, memory_bytes=0, gpu_memory_bytes=0,
    passes="stacked", available_bytes=1 << 40,
)  # fmt: skip


def groups_of(count: int) -> Groups:
    orders = [[LoadOrder(model="", directory="", device="cpu", dtype="auto", index=i, threads=1)] for i in range(count)]
    limits = RankLimits(start_s=1, stop_s=1)
    groups = Groups(orders, limits, InferenceMetrics(CollectorRegistry()), meetings=Path())
    for group in groups.all:
        group.ready = READY
    return groups


@pytest.fixture
def one() -> Groups:
    return groups_of(1)


async def test_previews_go_first_and_others_in_the_order_in_which_they_came(one: Groups):
    turns = Turns(one, 9, lambda: None)
    now = turns.join(preview=False)
    waiting = {name: turns.join(preview=name.startswith("preview")) for name in ("a", "b", "preview 1", "preview 2")}
    order = []
    for _ in waiting:
        turns.give_back(one.all[0])
        order += [name for name, turn in waiting.items() if turn.done() and name not in order]
    assert now.done()
    assert order == ["preview 1", "preview 2", "a", "b"]


async def test_each_group_has_one_span(one: Groups):
    groups = groups_of(2)
    turns = Turns(groups, 9, lambda: None)
    first, second, third = (turns.join(preview=False) for _ in range(3))
    assert {first.result(), second.result()} == set(groups.all)
    assert not third.done()
    assert (turns.busy, turns.waiting, turns.free) == (2, 1, 0)
    turns.give_back(second.result())
    assert third.result() is second.result()


async def test_a_group_that_is_not_ready_is_not_given_away(one: Groups):
    turns = Turns(one, 9, lambda: None)
    one.all[0].ready = None
    turn = turns.join(preview=False)
    assert not turn.done()
    one.all[0].ready = READY
    one._changed()
    assert turn.done()


async def test_who_leaves_makes_room(one: Groups):
    turns = Turns(one, 1, lambda: None)
    turns.join(preview=False)
    waiting = turns.join(preview=False)
    with pytest.raises(QueueFull, match="1 spans wait already") as caught:
        turns.check_room()
    assert caught.value.retry_after_s
    turns.leave(waiting)
    turns.check_room()


async def test_who_leaves_when_it_is_its_turn_hands_the_group_on(one: Groups):
    turns = Turns(one, 9, lambda: None)
    first, second = turns.join(preview=False), turns.join(preview=False)
    turns.leave(first)
    assert second.result() is one.all[0]


async def test_an_empty_queue_takes_a_span_that_can_begin_at_once(one: Groups):
    turns = Turns(one, 0, lambda: None)
    turns.check_room()
    turns.join(preview=False)
    with pytest.raises(QueueFull):
        turns.check_room()
