"""What people do with jobs: plan, create, cancel, delete, retry; at this gateway, whichever drives them."""

import asyncio
import secrets
import time
import weakref
from dataclasses import dataclass, replace

from services.common import tracing
from services.common.errors import AlreadyExists, NotSupported, UploadNotFound
from services.gateway import jobs, records
from services.gateway.admission import Left, QueueLimits, check_queue, megapixels_before, seconds
from services.gateway.book import JobBook
from services.gateway.catalogue import Catalogue
from services.gateway.cleaning import remove_fetched, remove_job
from services.gateway.driving import Driver
from services.gateway.identity.caller import current_caller
from services.gateway.identity.quotas import Quotas
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Job, PlanSummary
from services.gateway.keys import Ref
from services.gateway.options import check_id, check_request
from services.gateway.outputs import choose_output
from services.gateway.outside import Outside
from services.gateway.planning import PlanLimits, check_encoder, check_source, make_plan, output_size
from services.gateway.room import check_room
from services.gateway.sources import Sources
from services.gateway.store.base import Store
from services.gateway.tasks import finished

_SOURCE = "request.source"


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlSettings:
    """How jobs are taken."""

    queue: QueueLimits
    """Jobs that have not ended; more are refused."""

    index_s: float
    """Longest that a creation waits for the source's index; afterwards the job makes it."""

    first_answer_s: float = 0.0
    """How long a plan or a creation waits while no worker has answered yet."""


class JobControl:
    """Jobs from outside."""

    def __init__(
        self, *, book: JobBook, sources: Sources, store: Store, catalogue: Catalogue, driver: Driver,
        limits: PlanLimits, settings: ControlSettings, quotas: Quotas, outside: Outside,
    ) -> None:  # fmt: skip
        self._book = book
        self._sources = sources
        self._store = store
        self._catalogue = catalogue
        self._driver = driver
        self._limits = limits
        self._settings = settings
        self._quotas = quotas
        self._outside = outside
        self._beginning: dict[Ref, Job] = {}
        self._locks: weakref.WeakValueDictionary[Ref, asyncio.Lock] = weakref.WeakValueDictionary()

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
            AlreadyExists: the id belongs to another request. QueueFull, QuotaExceeded, StoreFull: not now.
            InvalidOption, NotSupported, InvalidVideo, UploadNotFound, WrongState, WorkerUnavailable: it can't be done.
        """
        ref = ref if ref.id else Ref(ref.owner, secrets.token_hex(8))
        check_id(ref.id, "job_id")
        async with self._changing(ref):
            known = await self._book.seek(ref)
            if known is not None:
                return _same(known, request)
            async with self._quotas.place():
                return await self._create(ref, request)

    async def _create(self, ref: Ref, request: JobRequest) -> Job:
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
            # Once it is written it must be driven, whoever asked for it and went away; before that nobody else may begin it.
            return await finished(self._begin(job))
        except AlreadyExists as error:
            # Another gateway was asked at the same moment.
            known = await self._book.seek(ref)
            if known is None:
                raise AlreadyExists(f"The id {ref.id} is being used or deleted; choose another.", field="job_id") from error
            return _same(known, request)

    def _active(self) -> list[Left]:
        known = [Left(job=job, frames_done=self._book.progress(job.ref).frames_done) for job in self._book.active()]
        return known + [Left(job=job) for ref, job in self._beginning.items() if self._book.find(ref) is None]

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
            output = choose_output(request.container, source.info, 1, request.encoder)
            size = output_size(request, source.info, self._limits, output.size_step)
            check_encoder(output, offer, *size)
            check_room(offer.model, *size, offer.memory_bytes)
        return source.upload.filename, source.upload.sha256

    async def _begin(self, job: Job) -> Job:
        try:
            await self._outside.expect(job)
            await self._book.create(job)
        finally:
            del self._beginning[job.ref]
        self._driver.drive(job.ref)
        return job

    # ---- change ----

    async def cancel(self, ref: Ref) -> Job:
        """End a job now. Its workers are free when this returns, or a moment later where another gateway drives it.

        Raises:
            JobNotFound: no such job. WrongState: it has ended otherwise.
        """
        async with self._changing(ref):
            await self._book.look(ref, latest=True)
            job = await self._book.update(ref, lambda job: jobs.cancelled(job, time.time()))
            await self._driver.stop(ref)
            # Whoever else drives it looks at the marks.
            await records.unmark(self._store, ref)
            return job

    async def retry(self, ref: Ref) -> Job:
        """Start a stopped job again.

        Raises:
            JobNotFound: no such job. WrongState: it has not stopped, or its upload was replaced.
            UploadNotFound: its upload is gone. QuotaExceeded, StoreFull: not now.
        """
        async with self._changing(ref), self._quotas.place():
            job = await self._book.look(ref, latest=True)
            jobs.retried(job, time.time())
            if not job.request.is_remote:
                await self._check_upload(job)
            await self._store.require_space()
            await self._driver.stop(ref)
            if job.request.is_remote and job.plan is None:
                # Perhaps it was not what should have been there.
                await remove_fetched(self._store, job)
            await self._outside.expect(job)
            await records.mark(self._store, ref)
            job = await self._book.update(ref, lambda job: jobs.retried(job, time.time()))
            self._driver.drive(ref)
            return job

    async def delete(self, ref: Ref) -> None:
        """Remove a job that has ended, with everything that no other job needs.

        Raises:
            JobNotFound: no such job. WrongState: it has not ended.
            Unavailable: another gateway has not let go of it yet.
        """
        async with self._changing(ref):
            jobs.deleting(await self._book.look(ref, latest=True))
            await self._driver.stop(ref)
            # Whoever asked for it and goes away leaves neither half of a job nor its lease.
            await finished(self._remove(ref))

    async def _remove(self, ref: Ref) -> None:
        async with self._driver.removing(ref):
            await remove_job(self._store, self._book, ref)

    async def _check_upload(self, job: Job) -> None:
        try:
            await self._sources.look(job.upload)
        except UploadNotFound as error:
            text = (
                f"The upload {job.request.upload_id} of this job was deleted, or has expired; upload the video, and create a job."
            )
            raise UploadNotFound(text) from error

    def _changing(self, ref: Ref) -> asyncio.Lock:
        """One change of a job at a time."""
        return self._locks.setdefault(ref, asyncio.Lock())


def _same(known: Job, request: JobRequest) -> Job:
    if known.request != request:
        raise AlreadyExists(f"The id {known.job_id} belongs to a job with another request; choose another.", field="job_id")
    return known
