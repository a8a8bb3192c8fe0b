import threading
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from services.common.errors import NotFound, ServiceError, StoreUnavailable
from services.gateway.store.s3.calls import Calls, pause_before
from tests.unit.gateway.store.s3.test_faults import said


@pytest_asyncio.fixture
async def calls() -> AsyncIterator[Calls]:
    calls = Calls(threads=2, tries=3, retry_s=60)
    yield calls
    calls.close()


def failing(times: int, error: Exception):
    left = [error] * times

    def call(again: bool) -> bool:
        if left:
            raise left.pop()
        return again

    return call


async def test_a_call_is_told_when_an_earlier_try_may_have_arrived(calls: Calls):
    assert await calls.run_told(failing(0, ConnectionError())) is False
    assert await calls.run_told(failing(2, ConnectionError())) is True


async def test_tries_are_counted(calls: Calls):
    with pytest.raises(StoreUnavailable):
        await calls.run_told(failing(3, ConnectionError()))


async def test_failures_are_told_and_answers_are_none():
    told: list[str] = []
    calls = Calls(threads=1, tries=3, retry_s=60, on_failure=told.append)
    await calls.run_told(failing(2, ConnectionError()))
    for error in (said("NoSuchKey", 404), said("PreconditionFailed", 412), said("AccessDenied", 403), said("QuotaExceeded", 403)):
        with pytest.raises(ServiceError):
            await calls.run_told(failing(1, error))
    assert told == ["passing", "passing", "refused", "full"]
    calls.close()


async def test_what_does_not_pass_is_tried_once(calls: Calls):
    tried: list[int] = []

    def call() -> None:
        tried.append(1)
        raise said("NoSuchKey", 404)

    with pytest.raises(NotFound):
        await calls.run(call)
    assert len(tried) == 1


async def test_no_try_begins_after_the_time_is_up():
    calls, began = Calls(threads=1, tries=1000, retry_s=0.5), []

    def call() -> None:
        began.append(time.monotonic())
        raise ConnectionError

    with pytest.raises(StoreUnavailable):
        await calls.run(call)
    assert 1 < len(began) < 10
    calls.close()


async def test_calls_have_threads_of_their_own(calls: Calls):
    names = {await calls.run(lambda: threading.current_thread().name) for _ in range(5)}
    assert all(name.startswith("s3") for name in names)


def test_pauses_grow_up_to_a_limit_and_differ():
    pauses = [[pause_before(number) for _ in range(50)] for number in range(1, 60)]
    assert max(pauses[0]) < min(pauses[2])
    assert all(pause <= 5 for several in pauses for pause in several)
    assert min(pauses[-1]) >= 2.5
    assert len(set(pauses[5])) > 1
