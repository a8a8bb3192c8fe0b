from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import QueueFull
from services.common.metrics import InferenceMetrics
from services.inference.groups import Groups
from services.inference.machines import Machines
from services.inference.messages import LoadOrder, RankReady
from services.inference.ranks import RankLimits
from services.inference.turns import Seat, Turns

READY = RankReady(
    facts={}, device="", dtype="", weight_format="", parameters=0, sha256={}, memory_bytes=0, gpu_memory_bytes=0,
    passes="stacked", available_bytes=1 << 40,
)  # fmt: skip


def groups_of(count: int) -> Groups:
    orders = [[LoadOrder(model="", directory="", device="cpu", dtype="auto", index=i, threads=1)] for i in range(count)]
    limits = RankLimits(start_s=1, stop_s=1)
    groups = Groups(orders, limits, InferenceMetrics(CollectorRegistry()), Machines(Path()))
    for group in groups.all:
        group.ready = READY
    return groups


@pytest.fixture
def one() -> Groups:
    return groups_of(1)


async def test_previews_go_first_and_others_in_the_order_in_which_they_came(one: Groups):
    turns = Turns(one, 9, lambda: None)
    now = turns.join(preview=True)
    waiting = {name: turns.join(preview=name.startswith("preview")) for name in ("a", "b", "preview 1", "preview 2")}
    order = []
    for _ in waiting:
        turns.give_back(Seat(one.all[0], beside=False))
        order += [name for name, turn in waiting.items() if turn.done() and name not in order]
    assert now.done()
    assert order == ["preview 1", "preview 2", "a", "b"]


async def test_each_group_has_one_span(one: Groups):
    groups = groups_of(2)
    turns = Turns(groups, 9, lambda: None)
    first, second, third = (turns.join(preview=False) for _ in range(3))
    assert {first.result().group, second.result().group} == set(groups.all)
    assert not third.done()
    assert (turns.busy, turns.waiting, turns.free) == (2, 1, 0)
    turns.give_back(second.result())
    assert third.result() == second.result()


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
        turns.check_room(preview=False)
    assert caught.value.retry_after_s
    turns.leave(waiting)
    turns.check_room(preview=False)


async def test_who_leaves_when_it_is_its_turn_hands_the_group_on(one: Groups):
    turns = Turns(one, 9, lambda: None)
    first, second = turns.join(preview=False), turns.join(preview=False)
    turns.leave(first)
    assert second.result().group is one.all[0]


async def test_an_empty_queue_takes_a_span_that_can_begin_at_once(one: Groups):
    turns = Turns(one, 0, lambda: None)
    turns.check_room(preview=False)
    turns.join(preview=False)
    with pytest.raises(QueueFull):
        turns.check_room(preview=False)


async def test_a_preview_takes_a_place_beside_a_batch_span_and_only_one_does(one: Groups):
    turns = Turns(one, 0, lambda: None)
    batch = turns.join(preview=False)
    turns.check_room(preview=True)
    first, second = turns.join(preview=True), turns.join(preview=True)
    assert (batch.result().beside, first.result().beside, second.done()) == (False, True, False)
    with pytest.raises(QueueFull):
        turns.check_room(preview=True)
    turns.give_back(first.result())
    assert second.result() == Seat(one.all[0], beside=True)
    assert (turns.busy, turns.free) == (2, 0)


async def test_a_preview_prefers_a_free_group_and_none_goes_beside_a_preview():
    groups = groups_of(2)
    turns = Turns(groups, 9, lambda: None)
    turns.join(preview=False)
    assert not turns.join(preview=True).result().beside
    assert turns.join(preview=True).result() == Seat(groups.all[0], beside=True)
    assert not turns.join(preview=True).done()


async def test_a_batch_span_whose_time_has_come_does_not_wait_for_a_preview_that_was_beside_another(one: Groups):
    turns = Turns(one, 9, lambda: None)
    batch, _, following = turns.join(preview=False), turns.join(preview=True), turns.join(preview=False)
    turns.give_back(batch.result())
    assert following.result() == Seat(one.all[0], beside=False)
