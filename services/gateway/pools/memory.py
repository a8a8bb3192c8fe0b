"""A fleet, and what the pools without a worker served last: jobs for these are taken, and wait until a worker comes."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterable, Callable, Iterable
from dataclasses import replace
from typing import Protocol

from services.common.errors import NotFound, ServiceError
from services.common.fleet import WorkerStatus
from services.common.media import Packet, SpanTask
from services.gateway import keys
from services.gateway.pools.records import PoolRecord, lasting, pool_from_json, pool_to_json, serves_the_same
from services.gateway.ports import OnSegment, OnStage, SpanOutcome, Workers, WorkerView
from services.gateway.store.base import Store

_log = logging.getLogger(__name__)
_LOOK_S = 30.0
# So often at least a pool that is there is noted; a small part of the time that others are remembered.
_NOTE_S = 86400.0
_NOTES = 4
_READY = frozenset({"ready", "busy"})


class Gathered(Workers, Protocol):
    """Workers that are there, and which pools are known whether they have any or not."""

    def pools(self) -> frozenset[str]:
        """Pools that somebody lists or labels, with workers or without."""


class RememberedPools:
    """The workers of a fleet, and for each pool that has none that serves anything, what its last ones served."""

    def __init__(self, fleet: Gathered, store: Store, *, keep_s: float, clock: Callable[[], float] = time.time) -> None:
        """``keep_s``: how long a pool is remembered that nobody lists or labels any more, in seconds; 0: for ever."""
        self._fleet = fleet
        self._store = store
        self._keep_s = keep_s
        self._clock = clock
        self._note_s = min(_NOTE_S, keep_s / _NOTES) if keep_s else _NOTE_S
        self._known: dict[str, PoolRecord] = {}
        self._stored: dict[str, PoolRecord] = {}
        self._unreadable: set[str] = set()
        self._listeners: list[Callable[[], None]] = []
        self._changed = asyncio.Event()
        self._keeping: asyncio.Task[None] | None = None
        fleet.on_change(self._hear)

    async def start(self) -> None:
        """Read which pools there were, and keep them from now on. Raises StoreUnavailable."""
        await self._read()
        self._remember()
        self._keeping = asyncio.create_task(self._keep_always())

    async def aclose(self) -> None:
        """Keep them no more."""
        if self._keeping is not None:
            self._keeping.cancel()
            await asyncio.wait({self._keeping})

    # ---- workers ----

    def views(self) -> list[WorkerView]:
        """See :class:`Workers`. A worker that has just been started says nothing of models: its pool still has those it had."""
        there = self._fleet.views()
        serving = {view.pool for view in there if _serves(view)}
        return there + [_gone(record) for pool, record in sorted(self._known.items()) if pool not in serving]

    def on_change(self, listener: Callable[[], None]) -> None:
        """See :class:`Workers`."""
        self._listeners.append(listener)

    def suspect(self, address: str) -> None:
        """See :class:`Workers`."""
        self._fleet.suspect(address)

    async def restore(
        self, address: str, task: SpanTask, packets: AsyncIterable[Packet], on_segment: OnSegment, on_stage: OnStage
    ) -> SpanOutcome:
        """See :class:`Workers`."""
        return await self._fleet.restore(address, task, packets, on_segment, on_stage)

    # ---- memory ----

    def _hear(self) -> None:
        self._remember()
        self._tell()

    def _tell(self) -> None:
        for listener in self._listeners:
            listener()

    def _remember(self) -> None:
        """Take over what workers say now, and that pools are there."""
        now = self._clock()
        for pool, views in _by_pool(self._fleet.views()).items():
            record = _standing_for(pool, views, self._known.get(pool), now)
            if record is not None:
                self._known[pool] = record
        for pool in self._fleet.pools() & self._known.keys():
            self._known[pool] = replace(self._known[pool], seen_at=now)
        if self._unwritten():
            self._changed.set()

    def _unwritten(self) -> list[PoolRecord]:
        return [record for pool, record in self._known.items() if self._is_news(record, self._stored.get(pool))]

    def _is_news(self, record: PoolRecord, stored: PoolRecord | None) -> bool:
        if stored is None or record.seen_at - stored.seen_at > self._note_s:
            return True
        return not serves_the_same(record.status, stored.status)

    # ---- store ----

    async def _keep_always(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_S):
                    await self._changed.wait()
            self._changed.clear()
            try:
                await self.keep()
            except ServiceError as error:
                _log.warning("what pools serve can't be kept now: %s", error.message)
                # What is not written yet would wake this at once.
                await asyncio.sleep(_LOOK_S)

    async def keep(self) -> None:
        """Write what is new, read what other gateways know, and forget what is over. Raises StoreUnavailable, StoreFull."""
        await self._read()
        self._remember()
        for record in self._unwritten():
            await self._store.put(keys.pool(record.pool), pool_to_json(record))
            self._stored[record.pool] = record
        for record in [each for each in self._known.values() if self._is_over(each)]:
            await self._forget(record)

    async def _read(self) -> None:
        """Pools of which nothing is known here."""
        known = {keys.pool(pool) for pool in self._known}
        found = [await self._look_up(key) for key in await self._store.keys(keys.POOLS) if key not in known]
        for record in filter(None, found):
            if self._is_over(record):
                await self._forget(record)
            else:
                self._known[record.pool] = self._stored[record.pool] = record
        if any(found):
            self._tell()

    async def _look_up(self, key: str) -> PoolRecord | None:
        try:
            return pool_from_json((await self._store.get(key))[0])
        except NotFound:
            return None
        except ValueError as error:
            if key not in self._unreadable:
                _log.warning("what a pool served can't be read", extra={"key": key, "detail": str(error)})
            self._unreadable.add(key)
            return None

    def _is_over(self, record: PoolRecord) -> bool:
        named = record.pool in self._fleet.pools()
        return bool(self._keep_s) and not named and self._clock() - record.seen_at > self._keep_s

    async def _forget(self, record: PoolRecord) -> None:
        """Unless another gateway has seen it meanwhile."""
        latest = await self._look_up(keys.pool(record.pool))
        if latest is not None and not self._is_over(latest):
            self._known[record.pool] = self._stored[record.pool] = latest
            return
        await self._store.delete(keys.pool(record.pool))
        self._known.pop(record.pool, None)
        self._stored.pop(record.pool, None)
        self._tell()
        _log.info("a pool that nobody has seen for long is forgotten", extra={"pool": record.pool})


def _serves(view: WorkerView) -> bool:
    return view.status is not None and bool(view.status.models)


def _by_pool(views: Iterable[WorkerView]) -> dict[str, list[WorkerView]]:
    found: dict[str, list[WorkerView]] = {}
    for view in filter(_serves, views):
        found.setdefault(view.pool, []).append(view)
    return found


def _standing_for(pool: str, views: Iterable[WorkerView], known: PoolRecord | None, now: float) -> PoolRecord | None:
    """A pool as one of its workers describes it: a ready one, and while it is replaced by others still one of the old ones."""
    described = [(view, view.status) for view in views if view.status is not None]

    def rank(each: tuple[WorkerView, WorkerStatus]) -> tuple[bool, bool, str]:
        view, status = each
        return view.state not in _READY, known is None or not serves_the_same(status, known.status), view.address

    view, status = min(described, key=rank)
    return PoolRecord(pool=pool, seen_at=now, address=view.address, status=lasting(status))


def _gone(record: PoolRecord) -> WorkerView:
    return WorkerView(
        address=record.address, pool=record.pool, status=record.status, lost=False, known_as="gone",
        detail="nobody is left of its pool",
    )  # fmt: skip
