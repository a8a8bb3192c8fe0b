import asyncio

import pytest

from services.common.errors import WrongState
from services.gateway.tasks import finished, for_each, together, unless


async def test_what_goes_wrong_in_one_task_ends_the_others_and_is_raised_as_itself():
    ended = asyncio.Event()

    async def wait() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def fail() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        async with together() as group:
            group.create_task(wait())
            group.create_task(fail())
    assert ended.is_set()


async def test_cancelling_passes_through():
    async def work() -> None:
        async with together() as group:
            group.create_task(asyncio.sleep(60))

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_work_that_comes_to_its_end_is_done():
    done: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0)
        done.append(1)

    assert await unless(asyncio.Event(), work())
    assert done == [1]


async def test_an_event_ends_work():
    event, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            event.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    assert not await unless(event, work())
    assert ended.is_set()


async def test_whoever_is_cancelled_leaves_no_work_behind():
    begun, ended = asyncio.Event(), asyncio.Event()

    async def work() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    task = asyncio.create_task(unless(asyncio.Event(), work()))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()


async def test_what_goes_wrong_in_work_is_raised():
    async def work() -> None:
        raise ValueError("wrong")

    with pytest.raises(ValueError, match="wrong"):
        await unless(asyncio.Event(), work())


async def test_each_item_is_worked_on_and_only_some_at_a_time():
    working = most = 0

    async def work(item: int) -> int:
        nonlocal working, most
        working += 1
        most = max(most, working)
        await asyncio.sleep(0)
        working -= 1
        return 2 * item

    assert await for_each(range(20), work, at_once=3) == [2 * item for item in range(20)]
    assert most == 3


async def test_work_that_must_be_done_is_done_though_its_caller_is_cancelled():
    done: list[int] = []

    async def work() -> None:
        await asyncio.sleep(0.01)
        done.append(1)

    task = asyncio.create_task(finished(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert done == [1]


@pytest.mark.parametrize(
    ("error", "level", "told"),
    [(ValueError("wrong"), "ERROR", "had begun failed"), (WrongState("Not now."), "WARNING", "failed: Not now.")],
)
async def test_work_that_fails_when_its_caller_is_gone_is_told_of(
    error: Exception, level: str, told: str, caplog: pytest.LogCaptureFixture
):
    async def work() -> None:
        await asyncio.sleep(0.01)
        raise error

    task = asyncio.create_task(finished(work()))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    record = next(record for record in caplog.records if record.message.endswith(told))
    assert record.levelname == level
    assert bool(record.exc_info) is (level == "ERROR"), "an answer of ours needs no traceback"
