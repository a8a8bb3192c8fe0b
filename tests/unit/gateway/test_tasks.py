import asyncio

import pytest

from services.gateway.tasks import together


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
