import asyncio
from collections.abc import AsyncGenerator

import pytest

from services.common.errors import JobNotFound
from services.gateway.rest.events import with_heartbeat


async def numbers(pause: asyncio.Event) -> AsyncGenerator[int, None]:
    yield 1
    await pause.wait()
    yield 2


async def test_silence_is_broken_now_and_then_and_nothing_gets_lost():
    pause, found = asyncio.Event(), []
    async for number in with_heartbeat(numbers(pause), 0.01):
        found.append(number)
        if found.count(None) == 3:
            pause.set()
    assert found[0] == 1
    assert found[-1] == 2
    assert set(found[1:-1]) == {None}


async def test_whoever_stops_listening_leaves_nothing_behind():
    changes = numbers(asyncio.Event())
    listening = with_heartbeat(changes, 0.01)
    assert [await anext(listening), await anext(listening)] == [1, None]
    await listening.aclose()
    assert {task for task in asyncio.all_tasks() if task is not asyncio.current_task()} == set()


async def test_what_goes_wrong_is_passed_on():
    async def gone() -> AsyncGenerator[int, None]:
        yield 1
        raise JobNotFound("There is no job a.")

    with pytest.raises(JobNotFound):
        assert [number async for number in with_heartbeat(gone(), 1)] == [1]
