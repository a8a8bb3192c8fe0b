import asyncio
from typing import Any

import pytest

from services.common.channel import Message
from services.common.child import error_fields
from services.common.errors import InvalidVideo, WorkerBroken
from services.inference.orders import FramesEnded, Order


def say(order: Order, place: int, kind: str, **fields: Any) -> None:
    order.hear(place, Message(kind, {"number": order.number} | fields))


async def heard(order: Order) -> list[Message]:
    async with asyncio.timeout(5):
        return [message async for message in order.messages()]


async def test_progress_is_the_leaders_and_the_end_is_everybodys():
    order = Order(1, 2)
    say(order, 1, "progress", stage="dit")
    say(order, 0, "progress", stage="vae_encode")
    say(order, 0, "done", peak_memory_bytes=5)
    assert not order.is_over
    say(order, 1, "done", peak_memory_bytes=8)
    assert order.is_over
    progress, done = await heard(order)
    assert progress.fields["stage"] == "vae_encode"
    assert (done.kind, done.fields["peak_memory_bytes"]) == ("done", 8)


async def test_an_error_of_any_rank_is_heard_at_once():
    order = Order(1, 2)
    say(order, 1, "failed", **error_fields(InvalidVideo("too odd")))
    with pytest.raises(InvalidVideo, match="too odd"):
        await heard(order)
    assert not order.is_over, "the other rank has not stopped yet"
    say(order, 0, "cancelled")
    assert order.is_over


@pytest.mark.parametrize("kind", ["lost", "cancelled"])
async def test_frames_that_end_early_end_it(kind: str):
    order = Order(1, 2)
    say(order, 1, "cancelled")
    say(order, 0, kind)
    with pytest.raises(FramesEnded):
        await heard(order)


async def test_a_lost_group_ends_it():
    order = Order(1, 2)
    order.lose(WorkerBroken("rank 1 is gone"))
    await asyncio.wait_for(order.wait_over(), 5)
    with pytest.raises(WorkerBroken, match="rank 1 is gone"):
        await heard(order)
