import asyncio

import pytest

from services.gateway.tasks import together, unless


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
