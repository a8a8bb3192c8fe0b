"""Who drives a job: a Lease of the cluster for each."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar

from prometheus_client import Counter

from services.common.errors import AlreadyExists, ClusterForbidden, ClusterUnavailable, NotFound, SettingsError, WrongState
from services.gateway.cluster.api import ClusterApi
from services.gateway.cluster.mirror import Mirror
from services.gateway.keys import Ref
from services.gateway.leases.others import Others
from services.gateway.leases.presence import Presence
from services.gateway.leases.records import (
    FIRST_TOKEN,
    LeaseTimes,
    Names,
    holder_of,
    job_of,
    new_job_lease,
    released,
    taken,
    token_of,
    version_of,
)
from services.gateway.ports import Lease

T = TypeVar("T")
_log = logging.getLogger(__name__)
# A gateway that adopts a thousand jobs must not flood the API server.
_CALLS = 8
_GIVE_BACK_S = _SILENCE_S = 2.0


@dataclass(frozen=True, slots=True, kw_only=True)
class KubernetesLease:
    """The right to drive a job, until it is released or this gateway loses its presence."""

    ref: Ref
    """Which job."""

    token: int
    """Larger than that of every earlier lease of the job; goes with each write of its state."""

    record: dict[str, Any] = field(repr=False, compare=False)
    """As the cluster has it."""

    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """Set before anybody else can take it."""


class KubernetesLeases:
    """Leases of the gateways of a cluster.

    While the API server is away nothing can be taken. What a gateway holds it holds until its presence could not be renewed
    for :attr:`LeaseTimes.deadline_s`; then it lets go, because it can't know whether others still see the server.
    """

    def __init__(self, api: ClusterApi, names: Names, times: LeaseTimes, *, events: Counter, watch_events: Counter) -> None:
        """``events`` counts what becomes of leases, ``watch_events`` what comes of watching them."""
        self._api = api
        self._names = names
        self._events = events
        self._others = Others(api, names, times)
        self._presence = Presence(api, names, times, on_lost=self._lose_all, events=events)
        self._held: dict[Ref, KubernetesLease] = {}
        # Only a hint, which spares a request for each job of others: what is taken is asked for first.
        self._seen = Mirror(api, names.collection, names.jobs, events=watch_events)
        self._calls = asyncio.Semaphore(_CALLS)
        self._tasks: set[asyncio.Task[Any]] = set()
        self._away = False
        self._silent_until = 0.0

    async def start(self) -> None:
        """Be present, where the API server is there.

        Raises:
            SettingsError: this gateway isn't allowed to have leases.
        """
        try:
            await self._presence.ensure()
            await self._others.look()
        except ClusterForbidden as error:
            raise SettingsError(error.message) from error
        except (ClusterUnavailable, WrongState) as error:
            _log.warning("jobs are driven once the Kubernetes API answers: %s", error.message)
        self._in_background(self._watch(self._others.look_always))
        self._in_background(self._watch(self._seen.run))

    async def aclose(self) -> None:
        """Be gone, for others to see at once."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._presence.leave()

    async def acquire(self, ref: Ref) -> KubernetesLease | None:
        """See :class:`Leases`; None, too, while the API server is away."""
        if self._is_held_elsewhere(ref):
            return None
        acquiring = self._in_background(self._acquire(ref))
        try:
            return await asyncio.shield(acquiring)
        except asyncio.CancelledError:
            # What was asked for may be granted.
            self._in_background(self._undo(acquiring))
            raise

    async def release(self, lease: Lease, *, forget: bool = False) -> None:
        """See :class:`Leases`."""
        held = self._held.get(lease.ref)
        if held is not lease:
            return
        del self._held[lease.ref]
        self._events.labels("released").inc()
        try:
            await self._give_back(held, forget=forget)
        except (NotFound, WrongState):
            _log.info("a lease that is given back was somebody else's already", extra={"job_id": lease.ref.id})
        except ClusterUnavailable as error:
            # This gateway can take it again, others can when it is gone.
            _log.warning("a lease can't be given back now: %s", error.message, extra={"job_id": lease.ref.id})

    async def jobs(self) -> list[Ref]:
        """See :class:`Leases`."""
        try:
            records, _ = await self._api.list_all(self._names.collection, self._names.jobs)
        except WrongState as error:
            raise ClusterUnavailable(f"The Kubernetes API lost a list in its middle: {error.message}") from error
        return sorted(ref for record in records if (ref := job_of(record)))

    async def freed(self, within_s: float) -> None:
        """See :class:`Leases`."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                await self._others.died.wait()
        self._others.died.clear()

    async def _give_back(self, lease: KubernetesLease, *, forget: bool) -> None:
        if asyncio.get_running_loop().time() < self._silent_until:
            # A gateway that stops must not wait for an answer once for each job.
            raise ClusterUnavailable("The Kubernetes API didn't answer just now.")
        path = self._names.path(self._names.job(lease.ref))
        try:
            if forget:
                await self._api.delete(path, version=version_of(lease.record), timeout_s=_GIVE_BACK_S)
            else:
                await self._api.replace(path, released(lease.record), timeout_s=_GIVE_BACK_S)
        except ClusterUnavailable:
            # Only what was asked counts: who gives back often would otherwise never ask again.
            self._silent_until = asyncio.get_running_loop().time() + _SILENCE_S
            raise

    async def _watch(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        try:
            await work()
        except Exception:
            # Without it each job of others is asked for one by one; nothing else is lost.
            _log.exception("the other gateways are not watched any more until the next start")

    async def _acquire(self, ref: Ref) -> KubernetesLease | None:
        async with self._calls:
            try:
                lease = await self._try(ref)
                self._away = False
                return lease
            except (AlreadyExists, NotFound, WrongState):
                # Somebody else was quicker.
                return None
            except ClusterUnavailable as error:
                if not self._away:
                    _log.warning("no lease can be taken: %s", error.message)
                self._away = True
                return None

    async def _try(self, ref: Ref) -> KubernetesLease | None:
        me, path = await self._presence.ensure(), self._names.path(self._names.job(ref))
        try:
            record = await self._api.get(path)
        except NotFound:
            record = await self._api.create(self._names.collection, new_job_lease(self._names, ref, me, time.time()))
            return self._hold(ref, me, record, "taken")
        holder = holder_of(record)
        if holder == me and ref in self._held:
            return None
        # The presence is looked at after the lease that names it: see Others.
        if holder not in ("", me) and not await self._others.is_dead(holder):
            return None
        record = await self._api.replace(path, taken(record, me, time.time()))
        return self._hold(ref, me, record, "taken_over" if holder else "taken")

    def _hold(self, ref: Ref, me: str, record: dict[str, Any], event: str) -> KubernetesLease | None:
        if me != self._presence.holder:
            # Lost while the answer was on its way.
            return None
        self._events.labels(event).inc()
        lease = self._held[ref] = KubernetesLease(ref=ref, token=token_of(record), record=record)
        return lease

    async def _undo(self, acquiring: asyncio.Task[KubernetesLease | None]) -> None:
        lease = await acquiring
        if lease is not None:
            # One that nobody had before is made away with: its job may be gone by now.
            await self.release(lease, forget=lease.token == FIRST_TOKEN)

    def _is_held_elsewhere(self, ref: Ref) -> bool:
        record = self._seen.find(self._names.job(ref))
        holder = holder_of(record) if record is not None else ""
        return holder not in ("", self._presence.holder) and self._others.seems_alive(holder)

    def _lose_all(self, holder: str) -> None:
        self._others.bury(holder)
        for lease in self._held.values():
            self._events.labels("lost").inc()
            lease.lost.set()
        self._held.clear()

    def _in_background(self, work: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
