"""Several tasks that end together."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterable
from typing import Any, TypeVar

from services.common.errors import ServiceError

T = TypeVar("T")
R = TypeVar("R")
_log = logging.getLogger(__name__)


@contextlib.asynccontextmanager
async def together() -> AsyncIterator[asyncio.TaskGroup]:
    """A task group; what goes wrong in it is raised as itself, the first of several."""
    try:
        async with asyncio.TaskGroup() as group:
            yield group
    except BaseExceptionGroup as errors:
        raise errors.exceptions[0] from errors


async def unless(event: asyncio.Event, work: Coroutine[Any, Any, None]) -> bool:
    """Do ``work`` to its end, or until ``event`` is set, which cancels it; returns whether it came to its end."""
    working, waiting = asyncio.create_task(work), asyncio.create_task(event.wait())
    try:
        await asyncio.wait({working, waiting}, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in (working, waiting):
            task.cancel()
        await asyncio.wait({working, waiting})
    if working.cancelled():
        return False
    working.result()
    return True


async def for_each(items: Iterable[T], work: Callable[[T], Awaitable[R]], *, at_once: int) -> list[R]:
    """What ``work`` gives for each item, in order; only so many are worked on at a time."""
    turns = asyncio.Semaphore(at_once)

    async def one(item: T) -> R:
        async with turns:
            return await work(item)

    async with together() as group:
        tasks = [group.create_task(one(item)) for item in items]
    return [task.result() for task in tasks]


async def finished(work: Coroutine[Any, Any, R]) -> R:
    """What ``work`` gives; it is done to its end also where the caller is cancelled meanwhile."""
    task = asyncio.create_task(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task})
        if not task.cancelled() and (error := task.exception()):
            _tell(error)
        raise


def _tell(error: BaseException) -> None:
    """Of what nobody else hears of."""
    what = "what a caller who went away had begun failed"
    if isinstance(error, ServiceError):
        # An answer as any other.
        _log.warning("%s: %s", what, error.message)
    else:
        _log.error(what, exc_info=error)
