import asyncio

import pytest

from services.common.errors import InvalidVideo
from services.inference.mailbox import Mailbox


async def _settled() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_items_arrive_in_order_and_then_it_ends():
    box: Mailbox[int] = Mailbox(3)
    for number in range(3):
        await box.put(number)
    await box.close()
    assert [number async for number in box] == [0, 1, 2]


async def test_putting_waits_while_nobody_takes():
    box: Mailbox[int] = Mailbox(1)
    await box.put(0)
    second = asyncio.create_task(box.put(1))
    await _settled()
    assert not second.done()
    assert await anext(aiter(box)) == 0
    await second


async def test_an_error_overtakes_what_is_untaken():
    box: Mailbox[int] = Mailbox(2)
    await box.put(0)
    await box.close(InvalidVideo("no"))
    with pytest.raises(InvalidVideo, match="no"):
        [number async for number in box]


async def test_who_puts_into_a_closed_box_does_not_hang():
    box: Mailbox[int] = Mailbox(1)
    await box.put(0)
    waiting = asyncio.create_task(box.put(1))
    await _settled()
    await box.close(InvalidVideo("no"))
    await asyncio.wait_for(waiting, 5)
