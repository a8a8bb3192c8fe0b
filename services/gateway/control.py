"""What people do with jobs: plan, create, cancel, delete, retry; and which jobs this gateway drives."""

import asyncio
import logging
import secrets
import time
import weakref
from dataclasses import dataclass

from services.common.errors import AlreadyExists, QueueFull, ServiceError, WrongState
from services.common.metrics import GatewayMetrics
from services.gateway import jobs
from services.gateway.book import JobBook
from services.gateway.catalogue import Catalogue
from services.gateway.cleaning import finish_removal, remove_job
from services.gateway.jobs import Job, JobRequest, PlanSummary
from services.gateway.options import check_id, check_request
from services.gateway.outputs import choose_output
from services.gateway.planning import PlanLimits, check_source, make_plan, output_size
from services.gateway.ports import Lease, Leases
from services.gateway.restore import Restorer
from services.gateway.room import check_room
from services.gateway.sources import Source, Sources
from services.gateway.store.base import Store

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """How jobs are taken."""

    max_active_jobs: int
    """Jobs that have not ended; more are refused."""

    index_s: float
    """Longest that a creation waits for the source's index; afterwards the job makes it."""

    adopt_s: float
    """How often jobs that nobody drives are looked for."""


class JobControl:
    """Jobs from outside."""

    def __init__(
        self, *, book: JobBook, sources: Sources, store: Store, catalogue: Catalogue, restorer: Restorer, leases: Leases,
        limits: PlanLimits, settings: ControlSettings, metrics: GatewayMetrics,
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
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._locks: weakref.WeakValueDictionary[str, asyncio.Lock] = weakref.WeakValueDictionary()
        self._closing = False

    # ---- plan and create ----

    async def plan(self, request: JobRequest) -> PlanSummary:
        """What a job would do.

        Raises:
            InvalidOption, NotSupported, InvalidVideo, UploadNotFound, WrongState, WorkerUnavailable: it can't be done.
        """
        check_request(request)
        offer = self._catalogue.offer(request)
        source = await self._sources.look(request.upload_id)
        index = await self._sources.index(source)
        return make_plan(request, source.info, index, source.upload.sha256, offer, self._limits)[1]

    async def create(self, job_id: str, request: JobRequest) -> Job:
        """Begin a job, or find the one with this id and an equal request; a refused one leaves nothing.

        Raises:
            AlreadyExists: the id belongs to another request. QueueFull, StoreFull: not now.
            InvalidOption, NotSupported, InvalidVideo, UploadNotFound, WrongState, WorkerUnavailable: it can't be done.
        """
        job_id = job_id or secrets.token_hex(8)
        check_id(job_id, "job_id")
        async with self._changing(job_id):
            known = self._book.find(job_id)
            if known is not None:
                return _same(known, request)
            source = await self._check(request)
            job = Job(
                job_id=job_id, request=request, model=request.model or self._catalogue.default_model(),
                filename=source.upload.filename, source_sha256=source.upload.sha256, created_at=time.time(),
            )  # fmt: skip
            try:
                # Once it is written it must be driven, whoever asked for it and went away.
                return await asyncio.shield(self._begin(job))
            except AlreadyExists as error:
                raise AlreadyExists(f"The id {job_id} is being used or deleted; choose another.", field="job_id") from error

    async def _check(self, request: JobRequest) -> Source:
        check_request(request)
        active = sum(not job.state.ended for job in self._book.jobs())
        if active >= self._settings.max_active_jobs:
            raise QueueFull(f"{active} jobs are waiting or running; try again when some have ended.", retry_after_s=30)
        offer = self._catalogue.offer(request)
        source = await self._sources.look(request.upload_id)
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
        return source

    async def _begin(self, job: Job) -> Job:
        await self._book.create(job)
        self._drive(job.job_id)
        return job

    # ---- change ----

    async def cancel(self, job_id: str) -> Job:
        """End a job now; its workers are free when this returns.

        Raises:
            JobNotFound: no such job. WrongState: it has ended otherwise.
        """
        async with self._changing(job_id):
            job = await self._book.update(job_id, lambda job: jobs.cancelled(job, time.time()))
            await self._stop(job_id)
            return job

    async def retry(self, job_id: str) -> Job:
        """Start a stopped job again.

        Raises:
            JobNotFound: no such job. WrongState: it has not stopped, or its upload was replaced.
            UploadNotFound: its upload is gone. StoreFull: no space.
        """
        async with self._changing(job_id):
            job = self._book.get(job_id)
            jobs.retried(job, time.time())
            await self._sources.look(job.request.upload_id)
            await self._store.require_space()
            await self._stop(job_id)
            job = await self._book.update(job_id, lambda job: jobs.retried(job, time.time()))
            self._drive(job_id)
            return job

    async def delete(self, job_id: str) -> None:
        """Remove a job that has ended, with everything that no other job needs.

        Raises:
            JobNotFound: no such job. WrongState: it has not ended.
        """
        async with self._changing(job_id):
            job = self._book.get(job_id)
            if not job.state.ended:
                raise WrongState(f"The job is {job.state}; cancel it, or wait until it has ended, then delete it.")
            await self._stop(job_id)
            await asyncio.shield(remove_job(self._store, self._book, job))
            self._forget(job_id)

    # ---- drive ----

    async def adopt(self) -> None:
        """Take up every job that has not ended and that nobody drives; finish deletions that were interrupted."""
        for job_id in await self._book.load():
            async with self._changing(job_id):
                if self._book.find(job_id) is None:
                    await finish_removal(self._store, self._book, job_id)
                    self._forget(job_id)
        for job in self._book.jobs():
            if not job.state.ended and not self._drive(job.job_id):
                await self._book.refresh(job.job_id)

    async def adopt_always(self) -> None:
        """:meth:`adopt`, again and again."""
        while True:
            await asyncio.sleep(self._settings.adopt_s)
            try:
                await self.adopt()
            except ServiceError:
                _log.exception("can't look for jobs that nobody drives")

    async def close(self) -> None:
        """Let go of all jobs; they are taken up again at the next start."""
        self._closing = True
        for job_id in list(self._tasks):
            await self._stop(job_id)

    def _drive(self, job_id: str) -> bool:
        """Begin to run a job; False where somebody else does."""
        if job_id in self._tasks or self._closing:
            return True
        lease = self._leases.acquire(job_id)
        if lease is None:
            return False
        self._tasks[job_id] = asyncio.create_task(self._run(job_id, lease))
        return True

    async def _run(self, job_id: str, lease: Lease) -> None:
        try:
            job = await self._book.refresh(job_id)
            if not job.state.ended:
                await self._restorer.run(job_id, lease.token)
        except ServiceError:
            _log.exception("a job can't be taken up yet", extra={"job_id": job_id})
        finally:
            self._leases.release(lease)
            self._tasks.pop(job_id, None)
            self._count(job_id)

    async def _stop(self, job_id: str) -> None:
        task = self._tasks.get(job_id)
        if task is not None:
            task.cancel()
            await asyncio.wait({task})

    def _changing(self, job_id: str) -> asyncio.Lock:
        """One change of a job at a time."""
        return self._locks.setdefault(job_id, asyncio.Lock())

    def _forget(self, job_id: str) -> None:
        lease = self._leases.acquire(job_id)
        if lease is not None:
            self._leases.release(lease, forget=True)

    def _count(self, job_id: str) -> None:
        job = self._book.find(job_id)
        if job is not None and job.state.ended:
            self._metrics.jobs_ended.labels(job.state.value).inc()
            self._metrics.job_duration.observe((job.ended_at or 0) - (job.asked_at or job.created_at))


def _same(known: Job, request: JobRequest) -> Job:
    if known.request != request:
        raise AlreadyExists(f"The id {known.job_id} belongs to a job with another request; choose another.", field="job_id")
    return known
