"""What people do with jobs: plan, create, cancel, delete, retry; and which jobs this gateway drives."""

import asyncio
import logging
import secrets
import time
import weakref
from dataclasses import dataclass, replace

from services.common import tracing
from services.common.errors import AlreadyExists, NotSupported, ServiceError, WrongState
from services.common.metrics import GatewayMetrics
from services.gateway import jobs
from services.gateway.admission import Left, QueueLimits, check_queue, megapixels_before, seconds
from services.gateway.book import JobBook
from services.gateway.catalogue import Catalogue
from services.gateway.cleaning import finish_removal, remove_fetched, remove_job
from services.gateway.identity.caller import current_caller
from services.gateway.jobs import Job, JobRequest, PlanSummary, State
from services.gateway.keys import Ref
from services.gateway.options import check_id, check_request
from services.gateway.outputs import choose_output
from services.gateway.outside import Outside
from services.gateway.planning import PlanLimits, check_source, make_plan, output_size
from services.gateway.ports import Lease, Leases
from services.gateway.restore import Restorer
from services.gateway.room import check_room
from services.gateway.sources import Sources
from services.gateway.store.base import Store
from services.gateway.tasks import unless

_log = logging.getLogger(__name__)
_SOURCE = "request.source"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """How jobs are taken."""

    queue: QueueLimits
    """Jobs that have not ended; more are refused."""

    index_s: float
    """Longest that a creation waits for the source's index; afterwards the job makes it."""

    adopt_s: float
    """How often jobs that nobody drives are looked for."""

    first_answer_s: float = 0.0
    """How long a plan or a creation waits while no worker has answered yet."""


class JobControl:
    """Jobs from outside."""

    def __init__(
        self, *, book: JobBook, sources: Sources, store: Store, catalogue: Catalogue, restorer: Restorer, leases: Leases,
        limits: PlanLimits, settings: ControlSettings, metrics: GatewayMetrics, outside: Outside,
    ) -> None:  # fmt: skip
        self._book = book
        self._sources = sources
        self._store = store
        self._catalogue = catalogue
        self._restorer = restorer
        self._leases = leases
        self._limits = limits
        self._settings = settings
        self._metrics = metrics
        self._outside = outside
        self._tasks: dict[Ref, asyncio.Task[None]] = {}
        self._beginning: dict[Ref, Job] = {}
        self._locks: weakref.WeakValueDictionary[Ref, asyncio.Lock] = weakref.WeakValueDictionary()
        self._closing = False

    # ---- plan and create ----

    async def plan(self, owner: str, request: JobRequest) -> PlanSummary:
        """What a job would do.

        Raises:
            InvalidOption, NotSupported, InvalidVideo, UploadNotFound, WrongState, WorkerUnavailable: it can't be done.
        """
        check_request(request, self._outside.offered)
        if request.is_remote:
            raise NotSupported("A source that must be fetched is planned by its job; create it, and watch it.", field=_SOURCE)
        offer = await self._catalogue.offer_soon(request, self._settings.first_answer_s)
        source = await self._sources.look(Ref(owner, request.upload_id))
        index = await self._sources.index(source)
        summary = make_plan(request, source.info, index, source.upload.sha256, offer, self._limits)[1]
        megapixels = summary.frames * summary.width * summary.height / 1e6
        before = megapixels_before(self._active(), owner, megapixels, preview=request.preview)
        return replace(summary, predicted_wait_s=seconds(before, self._catalogue.speed(summary.model, request.pool)))

    def check(self, request: JobRequest) -> None:
        """What can be said of a request alone, before its source is here. Raises InvalidOption, NotSupported."""
        check_request(request, self._outside.offered)

    async def create(self, ref: Ref, request: JobRequest) -> Job:
        """Begin a job, or find the one with this id and an equal request; a refused one leaves nothing.

        Raises:
            AlreadyExists: the id belongs to another request. QueueFull, StoreFull: not now.
            InvalidOption, NotSupported, InvalidVideo, UploadNotFound, WrongState, WorkerUnavailable: it can't be done.
        """
        ref = ref if ref.id else Ref(ref.owner, secrets.token_hex(8))
        check_id(ref.id, "job_id")
        async with self._changing(ref):
            known = self._book.find(ref)
            if known is not None:
                return _same(known, request)
            filename, sha256 = await self._check(ref.owner, request)
            job = Job(
                owner=ref.owner, subject=current_caller().subject, job_id=ref.id, request=request,
                model=request.model or self._catalogue.default_model(),
                filename=filename, source_sha256=sha256, created_at=time.time(),
                request_id=tracing.request_id(), traceparent=trace.traceparent if (trace := tracing.current()) else "",
            )  # fmt: skip
            # Others were let in while its source was looked at. From here on it counts itself.
            self._check_queue(ref.owner, request)
            self._beginning[ref] = job
            try:
                # Once it is written it must be driven, whoever asked for it and went away.
                return await asyncio.shield(self._begin(job))
            except AlreadyExists as error:
                raise AlreadyExists(f"The id {ref.id} is being used or deleted; choose another.", field="job_id") from error

    def _active(self) -> list[Left]:
        return [
            Left(job=job, frames_done=self._book.progress(job.ref).frames_done)
            for job in self._book.jobs()
            if not job.state.ended
        ] + [Left(job=job) for ref, job in self._beginning.items() if self._book.find(ref) is None]

    def _check_queue(self, owner: str, request: JobRequest) -> None:
        check_queue(self._active(), owner, self._settings.queue, self._catalogue.speed(request.model))

    async def _check(self, owner: str, request: JobRequest) -> tuple[str, str]:
        """Name and SHA-256 of the source, the latter empty where it must be fetched."""
        self.check(request)
        await self._outside.check(request, current_caller().subject)
        self._check_queue(owner, request)
        offer = await self._catalogue.offer_soon(request, self._settings.first_answer_s)
        if request.is_remote:
            await self._store.require_space()
            return self._outside.filename(request), ""
        source = await self._sources.look(Ref(owner, request.upload_id))
        await self._store.require_space()
        index = await self._sources.index_within(source, self._settings.index_s)
        if index is not None:
            make_plan(request, source.info, index, source.upload.sha256, offer, self._limits)
        else:
            check_source(source.info, self._limits)
            # How many frames there are is not known yet; the plan will say if they are too many for a picture.
            output = choose_output(request.container, source.info, 1)
            size = output_size(request, source.info, self._limits, output.size_step)
            check_room(offer.model, *size, offer.memory_bytes)
        return source.upload.filename, source.upload.sha256

    async def _begin(self, job: Job) -> Job:
        try:
            await self._outside.expect(job)
            await self._book.create(job)
        finally:
            del self._beginning[job.ref]
        self._drive(job.ref)
        return job

    # ---- change ----

    async def cancel(self, ref: Ref) -> Job:
        """End a job now; its workers are free when this returns.

        Raises:
            JobNotFound: no such job. WrongState: it has ended otherwise.
        """
        async with self._changing(ref):
            job = await self._book.update(ref, lambda job: jobs.cancelled(job, time.time()))
            await self._stop(ref)
            return job

    async def retry(self, ref: Ref) -> Job:
        """Start a stopped job again.

        Raises:
            JobNotFound: no such job. WrongState: it has not stopped, or its upload was replaced.
            UploadNotFound: its upload is gone. StoreFull: no space.
        """
        async with self._changing(ref):
            job = self._book.get(ref)
            jobs.retried(job, time.time())
            if not job.request.is_remote:
                await self._sources.look(job.upload)
            await self._store.require_space()
            await self._stop(ref)
            if job.request.is_remote and job.plan is None:
                # Perhaps it was not what should have been there.
                await remove_fetched(self._store, job)
            await self._outside.expect(job)
            job = await self._book.update(ref, lambda job: jobs.retried(job, time.time()))
            self._drive(ref)
            return job

    async def delete(self, ref: Ref) -> None:
        """Remove a job that has ended, with everything that no other job needs.

        Raises:
            JobNotFound: no such job. WrongState: it has not ended.
        """
        async with self._changing(ref):
            job = self._book.get(ref)
            if not job.state.ended:
                raise WrongState(f"The job is {job.state}; cancel it, or wait until it has ended, then delete it.")
            await self._stop(ref)
            await asyncio.shield(remove_job(self._store, self._book, job))
            await self._forget(ref)

    # ---- drive ----

    async def adopt(self) -> None:
        """Take up every job that has not ended and that nobody drives; finish deletions that were interrupted."""
        for ref in await self._book.load():
            async with self._changing(ref):
                if self._book.find(ref) is None:
                    await finish_removal(self._store, self._book, ref)
                    await self._forget(ref)
        for job in self._book.jobs():
            if not job.state.ended:
                self._drive(job.ref)

    async def adopt_always(self) -> None:
        """:meth:`adopt`, again and again."""
        while True:
            await self._leases.freed(self._settings.adopt_s)
            try:
                await self.adopt()
            except ServiceError:
                _log.exception("can't look for jobs that nobody drives")

    async def close(self) -> None:
        """Let go of all jobs; they are taken up again at the next start."""
        self._closing = True
        for ref in list(self._tasks):
            await self._stop(ref)

    def _drive(self, ref: Ref) -> None:
        """Begin to run a job where nobody else does."""
        if ref not in self._tasks and not self._closing:
            self._tasks[ref] = asyncio.create_task(self._run(ref))

    async def _run(self, ref: Ref) -> None:
        try:
            lease = await self._leases.acquire(ref)
            if lease is None:
                await self._book.refresh(ref)
                return
            try:
                await self._run_under(lease)
            finally:
                await self._leases.release(lease)
        except ServiceError:
            _log.exception("a job can't be taken up yet", extra={"job_id": ref.id, "owner": ref.owner})
        finally:
            self._tasks.pop(ref, None)

    async def _run_under(self, lease: Lease) -> None:
        job = await self._book.claim(lease.ref, lease.token)
        if job.state.ended:
            return
        if job.state is not State.PENDING:
            self._metrics.jobs_resumed.inc()
        # Whoever goes on with a job does so for the request, and in the trace, that created it.
        with tracing.working_for(tracing.parse(job.traceparent), job.request_id), tracing.span("job", job_id=job.job_id):
            try:
                if not await unless(lease.lost, self._restorer.run(job.ref, job.fence)):
                    _log.warning("a job was lost to another gateway", extra={"job_id": job.job_id, "owner": job.owner})
            finally:
                self._count(job.ref)

    async def _stop(self, ref: Ref) -> None:
        task = self._tasks.get(ref)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def _changing(self, ref: Ref) -> asyncio.Lock:
        """One change of a job at a time."""
        return self._locks.setdefault(ref, asyncio.Lock())

    async def _forget(self, ref: Ref) -> None:
        lease = await self._leases.acquire(ref)
        if lease is not None:
            await self._leases.release(lease, forget=True)

    def _count(self, ref: Ref) -> None:
        job = self._book.find(ref)
        if job is not None and job.state.ended:
            self._metrics.jobs_ended.labels(job.state.value).inc()
            self._metrics.job_duration.observe((job.ended_at or 0) - (job.asked_at or job.created_at))


def _same(known: Job, request: JobRequest) -> Job:
    if known.request != request:
        raise AlreadyExists(f"The id {known.job_id} belongs to a job with another request; choose another.", field="job_id")
    return known
