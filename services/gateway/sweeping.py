"""What nobody needs any more: jobs and uploads whose time is over, and what killed processes left behind."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from services.common.errors import JobNotFound, NewerRelease, ServiceError, UploadNotFound, WrongState
from services.common.metrics import GatewayMetrics
from services.gateway import keys, records
from services.gateway.cleaning import stored_plan
from services.gateway.control import JobControl
from services.gateway.jobs import Job
from services.gateway.keys import Ref
from services.gateway.outages import log_failure
from services.gateway.ports import Leases
from services.gateway.store.base import Store
from services.gateway.tasks import finished, for_each, unless
from services.gateway.uploads import Uploads

_log = logging.getLogger(__name__)
# No job is called like that: owners are hashes, or local.
_SWEEP = Ref("gateways", "sweep")
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class SweepSettings:
    """How long things are kept, in seconds; 0: for ever."""

    sweep_s: float
    """Between two looks."""

    keep_jobs_s: float
    """Ended jobs, from their end."""

    keep_uploads_s: float
    """Complete uploads that no job uses, from their completion."""

    keep_unfinished_s: float
    """Uploads that are not complete, from their last byte."""

    leftover_s: float = 3600.0
    """What belongs to nothing: whoever has just written it may be about to say what it belongs to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Known:
    """The jobs of an owner."""

    jobs: list[Job]
    """All that can be read."""

    complete: bool
    """No others are there, so that what these don't need nobody needs."""


class Sweeper:
    """Removes what has expired, and what belongs to nothing. One gateway does it at a time."""

    def __init__(
        self, *, store: Store, control: JobControl, uploads: Uploads, leases: Leases, settings: SweepSettings,
        metrics: GatewayMetrics,
    ) -> None:  # fmt: skip
        self._store = store
        self._control = control
        self._uploads = uploads
        self._leases = leases
        self._settings = settings
        self._metrics = metrics

    async def sweep_always(self) -> None:
        """:meth:`sweep` now, and again and again."""
        while True:
            try:
                await self._sweep_alone()
            except ServiceError as error:
                log_failure(_log, "what has expired can't be removed now", error)
            await asyncio.sleep(self._settings.sweep_s)

    async def sweep(self) -> None:
        """Look at everything once. Raises Unavailable."""
        await self._store.tidy()
        there = set[Ref]()
        for owner in await records.owners(self._store):
            # Listed before any plan is read: whatever is stored later has a plan that is not looked at here.
            spans = await self._store.names(keys.segments(owner))
            known = await self._jobs(owner)
            there.update(job.ref for job in known.jobs)
            await for_each(known.jobs, self._look_at_job, at_once=_AT_ONCE)
            await self._sweep_uploads(owner, known)
            if known.complete:
                # A plan of a later release says of no segment that it isn't needed.
                with contextlib.suppress(NewerRelease):
                    await self._sweep_segments(owner, set(spans), known.jobs)
        await self._sweep_leases(there)

    async def _sweep_alone(self) -> None:
        lease = await self._leases.acquire(_SWEEP)
        if lease is None:
            return
        try:
            await unless(lease.lost, self.sweep())
        finally:
            await finished(self._leases.release(lease))

    # ---- jobs ----

    async def _jobs(self, owner: str) -> _Known:
        refs = await records.job_refs(self._store, owner)
        found = await for_each(refs, self._read, at_once=_AT_ONCE)
        return _Known(jobs=[job for job in found if isinstance(job, Job)], complete=False not in found)

    async def _read(self, ref: Ref) -> Job | bool:
        """A job; True where there is none, False where there is one that can't be read."""
        try:
            stored = await records.read_job(self._store, ref)
        except ValueError:
            return False
        if stored is not None:
            # What a later release wrote may need what this one doesn't know.
            return False if stored.job.newer else stored.job
        await self._look_at_remains(ref)
        return True

    async def _look_at_remains(self, ref: Ref) -> None:
        names = await self._store.keys(keys.job(ref, ""))
        if names and await self._is_old(names, self._settings.leftover_s) and not await records.is_marked(self._store, ref):
            # Whoever looks after marked jobs removes them, once the mark is old, too.
            await records.mark(self._store, ref)

    async def _look_at_job(self, job: Job) -> None:
        if job.deleting or not job.state.ended:
            # Of an earlier release, or unmarked in an unlucky moment; or gone by now, and whoever removes a job unmarks it last.
            if not await records.is_marked(self._store, job.ref) and await records.is_written(self._store, job.ref):
                await records.mark(self._store, job.ref)
        elif self._is_over(job.ended_at or job.created_at, self._settings.keep_jobs_s):
            await self._remove_job(job)

    async def _remove_job(self, job: Job) -> None:
        try:
            await self._control.delete(job.ref)
        except (JobNotFound, WrongState):
            # Removed, or retried, in this moment.
            return
        except ServiceError as error:
            log_failure(_log, "a job that has expired can't be removed", error, job_id=job.job_id, owner=job.owner)
            return
        self._count("job", job.ref)

    # ---- uploads ----

    async def _sweep_uploads(self, owner: str, known: _Known) -> None:
        used = {job.upload for job in known.jobs}
        refs = [Ref(owner, name) for name in await self._store.names(keys.uploads(owner))]
        await for_each(
            (ref for ref in refs if ref not in used), lambda r: self._look_at_upload(r, known.complete), at_once=_AT_ONCE
        )

    async def _look_at_upload(self, ref: Ref, unused: bool) -> None:
        try:
            upload = await self._uploads.get(ref)
        except UploadNotFound:
            await self._look_at_upload_remains(ref)
            return
        if upload.complete:
            names, kept_s = [keys.upload(ref, "complete.json")], self._settings.keep_uploads_s
        else:
            names, kept_s = [keys.upload(ref, "upload.json"), keys.upload(ref, "data")], self._settings.keep_unfinished_s
        if kept_s and (unused or not upload.complete) and await self._is_old(names, kept_s):
            with contextlib.suppress(UploadNotFound, WrongState):
                await self._uploads.delete(ref)
                self._count("upload", ref)

    async def _look_at_upload_remains(self, ref: Ref) -> None:
        names = [keys.upload(ref, name) for name in ("complete.json", "data")]
        there = [name for name in names if await self._modified(name) is not None]
        # Some servers go on telling of a place after its last object went.
        if there and await self._is_old(there, self._settings.leftover_s):
            for name in there:
                await self._store.delete(name)
            self._count("leftover", ref)

    # ---- segments ----

    async def _sweep_segments(self, owner: str, spans: set[str], jobs: Iterable[Job]) -> None:
        if not spans:
            return
        for planned in await for_each(jobs, self._spans_of, at_once=_AT_ONCE):
            spans -= planned
        await for_each(spans, lambda span: self._look_at_segments(owner, span), at_once=_AT_ONCE)

    async def _spans_of(self, job: Job) -> set[str]:
        plan = await stored_plan(self._store, job.ref)
        return {plan.span_key(span) for span in plan.spans} if plan else set()

    async def _look_at_segments(self, owner: str, span: str) -> None:
        names = await self._store.keys(keys.segment(owner, span, ""))
        if names and await self._is_old(names, self._settings.leftover_s):
            for name in names:
                await self._store.delete(name)
            self._count("leftover", Ref(owner, span))

    # ---- leases ----

    async def _sweep_leases(self, there: Collection[Ref]) -> None:
        """Forget those whose job is gone: whoever deleted it was killed before it came to that, or had lost touch with them."""
        leased = set(await self._leases.jobs()).difference(there, {_SWEEP})
        await for_each(leased, self._look_at_lease, at_once=_AT_ONCE)

    async def _look_at_lease(self, ref: Ref) -> None:
        if not await self._is_gone(ref):
            return
        lease = await self._leases.acquire(ref)
        if lease is None:
            return
        gone = False
        try:
            gone = await self._is_gone(ref)
        finally:
            await finished(self._leases.release(lease, forget=gone))
        if gone:
            self._count("lease", ref)

    async def _is_gone(self, ref: Ref) -> bool:
        # A job that is just being created is marked first, and driven last, with a lease that begins anew.
        return not (await records.is_marked(self._store, ref) or await self._store.keys(keys.job(ref, "")))

    # ---- time ----

    async def _is_old(self, names: Iterable[str], seconds: float) -> bool:
        """Whether none of some objects was written since; those that are not there don't count."""
        found = [when for when in await for_each(names, self._modified, at_once=_AT_ONCE) if when is not None]
        return not found or time.time() - max(found) > seconds

    async def _modified(self, name: str) -> float | None:
        return await records.last_written(self._store, name)

    def _is_over(self, since: float, kept_s: float) -> bool:
        return bool(kept_s) and time.time() - since > kept_s

    def _count(self, kind: str, ref: Ref) -> None:
        _log.info("removed what nobody needs any more", extra={"kind": kind, "id": ref.id, "owner": ref.owner})
        self._metrics.swept.labels(kind).inc()
