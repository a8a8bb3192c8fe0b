"""Calls of the blocking client: in threads of their own, and again when something passing went wrong."""

import asyncio
import contextlib
import logging
import math
import random
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from services.gateway.store.s3.faults import AGAIN, ANSWERS, ERRORS, kind_of, our_error

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 5.0

T = TypeVar("T")

OnFailure = Callable[[str], None]
"""Told the kind, in lower case, of each request that failed."""


class Calls:
    """Runs calls. Methods raise what :func:`our_error` makes of the client's errors."""

    def __init__(self, *, threads: int, tries: int, retry_s: float, on_failure: OnFailure = lambda kind: None) -> None:
        """At most ``tries`` tries of a call, none of which begins later than ``retry_s`` after the first."""
        self._executor = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="s3")
        self._tries = tries
        self._retry_s = retry_s
        self._on_failure = on_failure

    def close(self) -> None:
        """Begin no more calls."""
        self._executor.shutdown(wait=False, cancel_futures=True)

    async def run(self, call: Callable[[], T]) -> T:
        """The call's result."""
        return await self.run_told(lambda _: call())

    async def run_told(self, call: Callable[[bool], T]) -> T:
        """The same; the call is told whether an earlier try of it may have reached the server."""
        until, failed = time.monotonic() + self._retry_s, 0
        while True:
            try:
                return await self.once(call, failed > 0)
            except ERRORS as error:
                failed += 1
                await self.pause(failed, error, until)

    async def pause(self, failed: int, error: BaseException, until: float = math.inf) -> None:
        """Wait before a try after ``failed`` ones. Raises what ``error`` is for us where there should be none."""
        pause_s, kind = pause_before(failed), kind_of(error)
        if kind not in ANSWERS:
            self._on_failure(kind.name.lower())
        if kind not in AGAIN or failed >= self._tries or time.monotonic() + pause_s > until:
            raise our_error(error) from error
        _log.warning("the object store is tried again", extra={"attempt": failed, "reason": type(error).__name__})
        await asyncio.sleep(pause_s)

    async def once(self, call: Callable[..., T], *arguments: object) -> T:
        """The result of one try. Raises the client's errors."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, call, *arguments)

    def soon(self, call: Callable[[], None]) -> None:
        """Begin a call that nobody waits for: to close a connection can take as long as to read from it."""
        with contextlib.suppress(RuntimeError):
            self._executor.submit(call)


def pause_before(number: int) -> float:
    """Seconds to wait after ``number`` tries: growing, and never the same for all who wait."""
    longest_s = min(_FIRST_PAUSE_S * 2 ** min(number, 10), _LONGEST_PAUSE_S)
    return random.uniform(longest_s / 2, longest_s)  # noqa: S311 - spreads load, guards nothing
