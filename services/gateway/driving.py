"""Which jobs this gateway drives: taken up under a lease, told to the other gateways, let go when somebody else changed them."""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.common import tracing
from services.common.errors import JobNotFound, NewerRelease, ServiceError, StoreFull, Unavailable
from services.common.metrics import GatewayMetrics
from services.gateway import records
from services.gateway.book import JobBook
from services.gateway.cleaning import finish_removal, is_beginning
from services.gateway.jobs import State
from services.gateway.keys import Ref
from services.gateway.outages import log_failure
from services.gateway.ports import Lease, Leases
from services.gateway.restore import Restorer
from services.gateway.store.base import Store
from services.gateway.tasks import finished, for_each, unless

_log = logging.getLogger(__name__)
_LOOK_S = 0.2
_AT_ONCE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class DriverSettings:
    """How a gateway works beside others."""

    adopt_s: float
    """How often jobs that nobody drives are looked for."""

    share_s: float
    """How often progress is told to other gateways, and what they changed is noticed."""

    patience_s: float = 10.0
    """How long to wait until another gateway has let go of a job that has ended."""


class Driver:
    """Runs the jobs of which this gateway has the leases."""

    def __init__(
        self,
        *,
        book: JobBook,
        store: Store,
        restorer: Restorer,
        leases: Leases,
        settings: DriverSettings,
        metrics: GatewayMetrics,
    ) -> None:
        self._book = book
        self._store = store
        self._restorer = restorer
        self._leases = leases
        self._settings = settings
        self._metrics = metrics
        self._tasks: dict[Ref, asyncio.Task[None]] = {}
        self._fences: dict[Ref, int] = {}
        self._closing = False

    # ---- drive ----

    def drive(self, ref: Ref) -> None:
        """Begin to run a job where nobody else does."""
        if ref not in self._tasks and not self._closing:
            self._tasks[ref] = asyncio.create_task(self._run(ref))

    async def stop(self, ref: Ref) -> None:
        """Stop running a job, if this gateway does; its workers are free when this returns."""
        task = self._tasks.get(ref)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    async def close(self) -> None:
        """Let go of all jobs; they are taken up again by other gateways, or at the next start."""
        self._closing = True
        await asyncio.gather(*(self.stop(ref) for ref in list(self._tasks)))

    @contextlib.asynccontextmanager
    async def removing(self, ref: Ref) -> AsyncIterator[None]:
        """Hold the lease of a job that has ended, so that nobody writes its objects while they are removed.

        Raises:
            Unavailable: another gateway has not let go of it yet.
        """
        lease, until = await self._leases.acquire(ref), time.monotonic() + self._settings.patience_s
        while lease is None:
            if time.monotonic() > until:
                raise Unavailable("Another gateway has not let go of this job yet; try again in a moment.", retry_after_s=2)
            await asyncio.sleep(_LOOK_S)
            lease = await self._leases.acquire(ref)
        gone = False
        try:
            yield
            gone = True
        finally:
            await finished(self._leases.release(lease, forget=gone))

    async def _run(self, ref: Ref) -> None:
        try:
            known = self._book.find(ref)
            left = known is not None and known.newer
            lease = None if left else await self._leases.acquire(ref)
            if lease is None:
                await self._book.look(ref, latest=True)
                return
            gone = False
            try:
                await self._run_under(lease)
            except JobNotFound:
                # Deleted between the look and the lease, which is a new one then.
                gone = True
                raise
            finally:
                await finished(self._let_go(lease, gone=gone))
        except JobNotFound:
            _log.info("a job was deleted meanwhile", extra={"job_id": ref.id, "owner": ref.owner})
        except ServiceError as error:
            log_failure(_log, "a job can't be taken up yet", error, job_id=ref.id, owner=ref.owner)
        finally:
            self._tasks.pop(ref, None)

    async def _run_under(self, lease: Lease) -> None:
        job = await self._book.claim(lease.ref, lease.token)
        if job.state.ended:
            return
        if job.state is not State.PENDING:
            self._metrics.jobs_resumed.inc()
        self._fences[job.ref] = job.fence
        self._book.drive(job.ref, True)
        # Whoever goes on with a job does so for the request, and in the trace, that created it.
        with tracing.working_for(tracing.parse(job.traceparent), job.request_id), tracing.span("job", job_id=job.job_id):
            try:
                if not await unless(lease.lost, self._restorer.run(job.ref, job.fence)):
                    _log.warning("a job was lost to another gateway", extra={"job_id": job.job_id, "owner": job.owner})
            finally:
                del self._fences[job.ref]
                self._count(job.ref)

    async def _let_go(self, lease: Lease, *, gone: bool) -> None:
        ref = lease.ref
        self._book.drive(ref, False)
        job = self._book.find(ref)
        try:
            if job is not None and job.state.ended:
                if not self._book.is_shared(ref):
                    await self._book.share(ref)
                await records.unmark(self._store, ref)
        except ServiceError as error:
            log_failure(_log, "the mark of a job stays", error, job_id=ref.id, owner=ref.owner)
        finally:
            await self._leases.release(lease, forget=gone)

    def _count(self, ref: Ref) -> None:
        job = self._book.find(ref)
        if job is not None and job.state.ended:
            self._metrics.jobs_ended.labels(job.state.value).inc()
            self._metrics.job_duration.observe((job.ended_at or 0) - (job.asked_at or job.created_at))

    # ---- look after jobs of others ----

    async def adopt(self) -> None:
        """Take up every job that has not ended and that nobody drives; finish deletions that were interrupted."""
        marked = await self._book.scan()
        await for_each((ref for ref in marked if ref not in self._tasks), self._look_after, at_once=_AT_ONCE)
        for job in self._book.active():
            self.drive(job.ref)

    async def adopt_always(self) -> None:
        """:meth:`adopt`, again and again."""
        while True:
            await self._leases.freed(self._settings.adopt_s)
            try:
                await self.adopt()
            except ServiceError as error:
                log_failure(_log, "can't look for jobs that nobody drives", error)

    async def _look_after(self, ref: Ref) -> None:
        """A marked job that nobody drives here; its creation, its end or its deletion was perhaps interrupted."""
        job = self._book.find(ref)
        if job is not None and not job.state.ended:
            return
        try:
            await self._look_again(ref)
        except StoreFull as error:
            # The other jobs go on.
            log_failure(_log, "what is left of a job can't be removed yet", error, job_id=ref.id, owner=ref.owner)

    async def _look_again(self, ref: Ref) -> None:
        # Before the look: what is written afterwards is a job that was just created.
        written = await records.is_written(self._store, ref)
        job = await self._book.seek(ref)
        if job is not None and job.state.ended:
            await self._unmark(ref)
        elif job is None and (written or not await is_beginning(self._store, ref)):
            await self._finish_removal(ref)

    async def _unmark(self, ref: Ref) -> None:
        """Whoever ended a job could not say that nothing is left to do."""
        await records.unmark(self._store, ref)
        job = await self._book.seek(ref)
        if job is None or not job.state.ended:
            # It was retried, or its deletion began, in between.
            await records.mark(self._store, ref)

    async def _finish_removal(self, ref: Ref) -> None:
        lease = await self._leases.acquire(ref)
        if lease is None:
            return
        gone = False
        try:
            gone = await finish_removal(self._store, self._book, ref)
        except (NewerRelease, ValueError):
            # The book has told of it; another release will know what to do.
            return
        finally:
            await finished(self._leases.release(lease, forget=gone))

    # ---- tell others, and listen ----

    async def share(self) -> None:
        """Tell other gateways how far the jobs are that run here, and notice which of them were changed there."""
        marked = frozenset(await records.marked(self._store))
        refs = [ref for ref in self._fences if ref not in marked or not self._book.is_shared(ref)]
        await for_each(refs, lambda ref: self._share(ref, ref in marked), at_once=_AT_ONCE)

    async def share_always(self) -> None:
        """:meth:`share`, again and again."""
        while True:
            await asyncio.sleep(self._settings.share_s)
            try:
                await self.share()
            except ServiceError as error:
                log_failure(_log, "can't tell other gateways about jobs", error)

    async def _share(self, ref: Ref, marked: bool) -> None:
        if not marked:
            # Before the look: whoever changes the job after it takes the mark away again.
            await records.mark(self._store, ref)
        job = await self._book.seek(ref)
        if ref not in self._fences:
            return
        if job is None or job.state.ended or job.fence != self._fences[ref]:
            self._tasks[ref].cancel()
        else:
            await self._book.share(ref)
