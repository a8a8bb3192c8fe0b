"""That this gateway lives: a lease of its own, renewed for as long as it does."""

import asyncio
import logging
import random
import secrets
import socket
import time
from collections.abc import Callable
from typing import Any

from prometheus_client import Counter

from services.common.errors import ClusterUnavailable, NotFound, WrongState
from services.gateway.cluster.api import ClusterApi
from services.gateway.leases.records import LeaseTimes, Names, new_presence, renewed

_log = logging.getLogger(__name__)
_SHORTEST_TIMEOUT_S = 1.0
# A renewal that failed is tried again after this part of the usual time.
_SOONER = 0.25


class Presence:
    """This gateway among the others. What it was once it lost its presence it never is again: then it gets a new identity."""

    def __init__(
        self, api: ClusterApi, names: Names, times: LeaseTimes, *, on_lost: Callable[[str], None], events: Counter
    ) -> None:
        """``on_lost`` is told which identity was lost, before anybody else may count it as dead."""
        self._api = api
        self._names = names
        self._times = times
        self._on_lost = on_lost
        self._events = events
        self._holder = ""
        # As the cluster has it; empty where the answer to a renewal may have been lost on its way.
        self._record: dict[str, Any] = {}
        self._expiry: asyncio.TimerHandle | None = None
        self._renewing: asyncio.Task[None] | None = None
        self._coming = asyncio.Lock()
        self._leftover = ""

    @property
    def holder(self) -> str:
        """This gateway's identity; empty while it has none."""
        return self._holder

    async def ensure(self) -> str:
        """The identity, a new one where there is none. Raises ClusterUnavailable."""
        async with self._coming:
            if not self._holder:
                await self._come()
            return self._holder

    async def leave(self) -> None:
        """Say that this gateway is gone, so that nobody waits for it."""
        if self._holder:
            path = self._names.path(self._names.presence(self._holder))
            self._let_go()
            try:
                await self._api.delete(path)
            except (ClusterUnavailable, NotFound) as error:
                _log.info("the presence of this gateway stays until it expires", extra={"detail": error.message})

    async def _come(self) -> None:
        holder, asked = f"{socket.gethostname()}_{secrets.token_hex(8)}", _now()
        body = new_presence(self._names, holder, self._times, time.time())
        self._record = await self._api.create(self._names.collection, body, timeout_s=self._timeout_s)
        self._holder = holder
        self._hold_until(asked + self._times.deadline_s)
        self._renewing = asyncio.create_task(self._renew_always())
        _log.info("this gateway is present", extra={"holder": holder})
        await self._remove_leftover()

    async def _remove_leftover(self) -> None:
        """What this gateway was before it lost touch."""
        leftover, self._leftover = self._leftover, ""
        if leftover:
            try:
                await self._api.delete(self._names.path(self._names.presence(leftover)))
            except (ClusterUnavailable, NotFound) as error:
                _log.info("an earlier presence of this gateway is left to expire", extra={"detail": error.message})

    async def _renew_always(self) -> None:
        pause_s = self._times.renew_s
        while True:
            await asyncio.sleep(pause_s * random.uniform(0.7, 1))  # noqa: S311 - no secret
            try:
                await self._renew()
                pause_s = self._times.renew_s
            except NotFound:
                self._lose("somebody removed it")
            except (WrongState, ClusterUnavailable) as error:
                self._events.labels("late").inc()
                _log.warning("this gateway's presence can't be renewed: %s", error.message)
                pause_s = self._times.renew_s * _SOONER

    async def _renew(self) -> None:
        path = self._names.path(self._names.presence(self._holder))
        if not self._record:
            self._record = await self._api.get(path, timeout_s=self._timeout_s)
        asked, record, self._record = _now(), self._record, {}
        self._record = await self._api.replace(path, renewed(record, time.time()), timeout_s=self._timeout_s)
        # From before the question, because nobody can say when it was answered.
        self._hold_until(asked + self._times.deadline_s)

    @property
    def _timeout_s(self) -> float:
        return max(self._times.renew_s, _SHORTEST_TIMEOUT_S)

    def _hold_until(self, moment: float) -> None:
        if self._expiry is not None:
            self._expiry.cancel()
        reason = f"it could not be renewed for {self._times.deadline_s:g} s"
        self._expiry = asyncio.get_running_loop().call_at(moment, self._lose, reason)

    def _lose(self, reason: str) -> None:
        holder = self._leftover = self._holder
        self._let_go()
        _log.error("this gateway lost its presence, and lets go of its jobs: %s", reason, extra={"holder": holder})
        self._on_lost(holder)

    def _let_go(self) -> None:
        self._holder = ""
        if self._expiry is not None:
            self._expiry.cancel()
        if self._renewing is not None:
            self._renewing.cancel()


def _now() -> float:
    """Seconds of a clock that nobody sets."""
    return asyncio.get_running_loop().time()
