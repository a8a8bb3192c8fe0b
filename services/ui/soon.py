"""Calls whose answer a person is looking for: rather none soon than one late."""

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from services.common.errors import Unavailable

T = TypeVar("T")
_LIMIT_S = 5.0


async def soon(call: Awaitable[T]) -> T:
    """What ``call`` returns.

    Raises:
        Unavailable: it takes longer than five seconds.
    """
    try:
        async with asyncio.timeout(_LIMIT_S):
            return await call
    except TimeoutError as error:
        raise Unavailable("The gateway doesn't answer in time.") from error
