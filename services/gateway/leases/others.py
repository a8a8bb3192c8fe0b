"""Which other gateways live.

No clock but this process's own is asked: a presence that stays the same for as long as it lasts, seen by us, has expired. Its
gateway has then let go of its jobs by its own clock, and is dead for good, because it never uses that identity again.
"""

import asyncio
import logging
from dataclasses import dataclass
from typing import Any

from services.common.errors import ClusterUnavailable, NotFound, WrongState
from services.gateway.cluster.api import ClusterApi
from services.gateway.leases.records import LeaseTimes, Names, holder_of, lasts_s, version_of

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sight:
    version: str
    since: float
    lasts_s: int


class Others:
    """The presences of all gateways, as this process sees them."""

    def __init__(self, api: ClusterApi, names: Names, times: LeaseTimes, *, kept: int = 10) -> None:
        """Presences that have expired are removed after ``kept`` times their duration."""
        self._api = api
        self._names = names
        self._times = times
        self._kept = kept
        self._sights: dict[str, _Sight] = {}
        self._dead: set[str] = set()
        self.died = asyncio.Event()
        """Set when one more gateway seems to be gone; whoever has waited clears it."""

    def bury(self, holder: str) -> None:
        """Count a gateway as dead for good."""
        self._sights.pop(holder, None)
        if holder not in self._dead:
            self._dead.add(holder)
            self.died.set()

    def seems_alive(self, holder: str) -> bool:
        """By what was seen last."""
        sight = self._sights.get(holder)
        return sight is not None and holder not in self._dead and not _expired(sight, _now())

    async def is_dead(self, holder: str) -> bool:
        """By a look at its presence now. Raises ClusterUnavailable."""
        if holder in self._dead:
            return True
        before = _now()
        try:
            record = await self._api.get(self._names.path(self._names.presence(holder)))
        except NotFound:
            # It was there before the job's lease that names it.
            self.bury(holder)
            return True
        self._judge(record, before)
        return holder in self._dead

    async def look_always(self) -> None:
        """Keep an eye on all of them."""
        failing = False
        while True:
            try:
                await self.look()
                failing = False
            except (ClusterUnavailable, WrongState) as error:
                if not failing:
                    _log.warning("the other gateways can't be seen: %s", error.message)
                failing = True
            await asyncio.sleep(min([self._times.renew_s, *self._left()]))

    async def look(self) -> None:
        """See all of them once. Raises ClusterUnavailable, WrongState."""
        before = _now()
        records, _ = await self._api.list_all(self._names.collection, self._names.presences)
        there = {holder_of(record): record for record in records}
        for gone in self._sights.keys() - there.keys():
            self.bury(gone)
        for holder, record in there.items():
            sight = self._judge(record, before)
            if before - sight.since > self._kept * sight.lasts_s:
                await self._remove(holder, record)

    async def _remove(self, holder: str, record: dict[str, Any]) -> None:
        try:
            await self._api.delete(self._names.path(self._names.presence(holder)), version=version_of(record))
        except (NotFound, WrongState):
            return
        _log.info("removed the presence of a gateway that is long gone", extra={"holder": holder})

    def _judge(self, record: dict[str, Any], before: float) -> _Sight:
        """What is seen of a presence that was asked for ``before``."""
        sight, holder = self._see(record), holder_of(record)
        # Unchanged until now, and that for long enough before we asked.
        if _expired(sight, before) and holder not in self._dead:
            _log.warning("a gateway is gone; its jobs are taken up", extra={"holder": holder})
            self._dead.add(holder)
            self.died.set()
        return sight

    def _see(self, record: dict[str, Any]) -> _Sight:
        holder, version = holder_of(record), version_of(record)
        known = self._sights.get(holder)
        if known is None or known.version != version:
            known = _Sight(version=version, since=_now(), lasts_s=lasts_s(record, self._times))
            self._sights[holder] = known
        return known

    def _left(self) -> list[float]:
        """Seconds until each expires, for those that have not."""
        now = _now()
        return [s.since + s.lasts_s - now for s in self._sights.values() if not _expired(s, now)]


def _expired(sight: _Sight, now: float) -> bool:
    return now - sight.since >= sight.lasts_s


def _now() -> float:
    """Seconds of a clock that nobody sets."""
    return asyncio.get_running_loop().time()
