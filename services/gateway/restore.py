"""The use case: a job from its request to its result. Plan, dispatch, collect, join; taken up again it goes on from the store."""

import asyncio
import contextlib
import logging
import math
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePath

from services.common import tracing
from services.common.errors import (
    AlreadyExists,
    FingerprintChanged,
    InternalError,
    NewerRelease,
    NotFound,
    ServiceError,
    StoreFull,
    StoreUnavailable,
    WrongState,
)
from services.common.formats import MEDIA_TYPES, VIDEOS
from services.common.logs import log_context
from services.common.metrics import GatewayMetrics
from services.common.plan import Plan, plan_from_json, plan_to_json
from services.gateway import jobs, keys
from services.gateway.book import JobBook
from services.gateway.cleaning import remove_plan
from services.gateway.cuts import CutFinder, Cuts
from services.gateway.dispatch import Asking, Dispatcher
from services.gateway.identity.usage import UsageBook
from services.gateway.jobs import Job, State
from services.gateway.keys import Ref
from services.gateway.outages import Outage, log_failure, step_of
from services.gateway.outputs import kept
from services.gateway.outside import Outside
from services.gateway.planning import PlanLimits, expected_megapixels, frame_range, make_plan
from services.gateway.ports import ContainerFiles, Joined, JoinTask
from services.gateway.progress import CUTS, FETCH, JOIN, PLAN, PROBE, STORE, WAITING, Progress, ProgressMeter
from services.gateway.report import report_to_json
from services.gateway.source import ARCHIVE, SourceIndex
from services.gateway.sources import Source, Sources
from services.gateway.spans import JobWork, SpanRunner
from services.gateway.store.base import Store
from services.gateway.tasks import together

_log = logging.getLogger(__name__)
_REPLANNED = "The workers that began this job are gone; it was planned anew for others, from its beginning."
_LATE = "Another gateway had begun to plan this job; its plan was replaced."
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.5, 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Run:
    """One run of a job, under one lease."""

    ref: Ref
    token: int
    source: Source
    index: SourceIndex


class Restorer:
    """Runs jobs."""

    def __init__(
        self, *, book: JobBook, sources: Sources, store: Store, container: ContainerFiles, dispatcher: Dispatcher,
        spans: SpanRunner, cuts: CutFinder, usage: UsageBook, limits: PlanLimits, metrics: GatewayMetrics, outside: Outside,
        store_wait_s: float,
    ) -> None:  # fmt: skip
        """A job that gets no further for ``store_wait_s`` because the store doesn't answer fails."""
        self._book = book
        self._sources = sources
        self._store = store
        self._container = container
        self._dispatcher = dispatcher
        self._spans = spans
        self._cuts = cuts
        self._usage = usage
        self._limits = limits
        self._metrics = metrics
        self._outside = outside
        self._store_wait_s = store_wait_s

    async def run(self, ref: Ref, token: int) -> None:
        """Take a job to its end, from wherever it is.

        Returns when the job has ended, or is left to a later release; raises nothing but CancelledError, which leaves it to
        be taken up again.
        """
        with log_context(job_id=ref.id, owner=ref.owner):
            try:
                await self._run_through_outages(ref, token)
            except NewerRelease as error:
                _log.warning("a job is left to gateways of a later release", extra={"detail": error.message})
                self._book.leave(ref)
            except ServiceError as error:
                _log.warning("job failed", extra={"reason": type(error).__name__, "detail": error.message})
                await self._fail(ref, token, error)
            except Exception:
                _log.exception("a job failed inside the service")
                text = "Something went wrong inside the service while the job ran; its log has the details. Retry the job."
                await self._fail(ref, token, InternalError(text))

    async def _run_through_outages(self, ref: Ref, token: int) -> None:
        outage = Outage(limit_s=self._store_wait_s)
        while True:
            try:
                return await self._run(ref, token)
            except StoreUnavailable as error:
                progress = self._book.progress(ref)
                pause_s = outage.next_pause(error, step_of(self._book.get(ref), progress), time.monotonic())
                self._book.show(ref, replace(progress, stage=STORE, frames_per_second=0.0, time_left_s=None))
                _log.warning("a job waits for the store", extra={"detail": error.message, "pause_s": pause_s})
            await asyncio.sleep(pause_s)

    async def _run(self, ref: Ref, token: int) -> None:
        await self._usage.began(self._book.get(ref))
        with tracing.span("probe"):
            run = await self._look(ref, token)
        while True:
            with tracing.span("plan"):
                plan = await self._plan(run)
            try:
                await self._restore(run, plan)
                with tracing.span("join"):
                    return await self._join(run, plan)
            except FingerprintChanged:
                if self._book.get(ref).replanned:
                    raise
                await self._update(run, lambda job: jobs.replanning(job, _REPLANNED, time.time()))
            except InternalError as error:
                await self._drop_broken_segment(run, plan, error)

    async def _look(self, ref: Ref, token: int) -> _Run:
        job = self._book.get(ref)
        if job.request.is_remote:
            job = await self._fetch(job, token)
        self._book.show(ref, Progress(stage=PROBE))
        source = await self._sources.look(job.upload)
        if source.upload.sha256 != job.source_sha256:
            raise WrongState("The upload was replaced since the job was created; create another job.")
        index = await self._sources.job_index(ref, source, lambda _: self._book.show(ref, Progress(stage=PLAN)))
        return _Run(ref=ref, token=token, source=source, index=index)

    async def _fetch(self, job: Job, token: int) -> Job:
        def show(done_bytes: int, size_bytes: int) -> None:
            fraction = done_bytes / size_bytes if size_bytes else 0.0
            self._book.show(job.ref, Progress(stage=FETCH, stage_fraction=fraction))

        show(0, 0)
        upload = await self._outside.fetch(job, show)
        return await self._book.update(job.ref, lambda job: jobs.fetched(job, upload.sha256), token=token)

    # ---- plan ----

    async def _plan(self, run: _Run) -> Plan:
        job, key = self._book.get(run.ref), keys.job(run.ref, "plan.json")
        if job.plan is not None:
            with contextlib.suppress(NotFound):
                return plan_from_json((await self._store.get(key))[0])
        # A plan that no summary announces is one that was given up, or not begun.
        await remove_plan(self._store, self._book, job)
        await self._update(run, lambda job: jobs.advance(job, State.PLANNING, time.time()))
        asking = Asking(
            model=job.model, pool=job.request.pool, encoder=job.request.encoder,
            megapixels=expected_megapixels(job.request, run.source.info, run.index, self._limits),
        )  # fmt: skip
        offer = await self._dispatcher.offer(asking, lambda: self._book.show(run.ref, Progress(stage=WAITING)))
        cuts = await self._find_cuts(run, job)
        plan, summary = make_plan(
            job.request, run.source.info, run.index, run.source.upload.sha256, offer, self._limits, cuts.frames
        )
        await self._write_plan(run, plan)
        await self._update(run, lambda job: jobs.planned(job, summary, time.time()))
        return plan

    async def _write_plan(self, run: _Run, plan: Plan) -> None:
        key = keys.job(run.ref, "plan.json")
        try:
            await self._store.put(key, plan_to_json(plan), if_absent=True)
        except AlreadyExists:
            # Whoever drove the job before was a moment late; if that is this run, it ends here.
            await self._book.look(run.ref, latest=True)
            await self._update(run, lambda job: jobs.noted(job, _LATE))
            await self._store.put(key, plan_to_json(plan))

    async def _find_cuts(self, run: _Run, job: Job) -> Cuts:
        first, end = frame_range(job.request, run.source.info, run.index)
        cuts = await self._cuts.job_cuts(
            run.ref, run.source, run.index, first, end,
            lambda fraction: self._book.show(run.ref, Progress(stage=CUTS, stage_fraction=fraction)),
        )  # fmt: skip
        if cuts.note:
            await self._update(run, lambda job: jobs.noted(job, cuts.note))
        return cuts

    # ---- restore ----

    async def _restore(self, run: _Run, plan: Plan) -> None:
        job = await self._update(run, lambda job: jobs.advance(job, State.RESTORING, time.time()))
        meter = ProgressMeter(
            frames_total=plan.frames,
            segments_total=len(plan.segments),
            predicted_s=job.plan.predicted_s if job.plan else None,
        )
        self._book.show(run.ref, meter.progress(time.monotonic()))
        work = JobWork(job=job, token=run.token, plan=plan, source=run.source, index=run.index, meter=meter)
        async with together() as group:
            for span in plan.spans:
                group.create_task(self._spans.restore(work, span))

    async def _drop_broken_segment(self, run: _Run, plan: Plan, error: InternalError) -> None:
        """Let a segment that turned out not to be whole be restored again. Raises ``error`` where none is to blame."""
        if not error.field.isdigit():
            raise error
        segment = plan.segments[int(error.field)]
        note = f"Frames {segment.first} to {segment.end} were not stored whole, and are restored again."
        if note in self._book.get(run.ref).notes:
            raise InternalError(f"Frames {segment.first} to {segment.end} come incomplete from the workers; see their logs.")
        await self._store.delete(_segment_key(run.ref.owner, plan, int(error.field)))
        await self._update(run, lambda job: jobs.noted(job, note))

    # ---- join ----

    async def _join(self, run: _Run, plan: Plan) -> None:
        job = await self._update(run, lambda job: jobs.advance(job, State.JOINING, time.time()))
        started, name = time.monotonic(), f"result.{plan.container}"
        done = replace(self._book.progress(run.ref), stage=JOIN)
        self._book.show(run.ref, done)
        async with self._store.scratch("." + plan.container) as output:
            async with self._sources.file(run.source.upload.ref) as source:
                task = join_task(run.source, run.index, plan, source, output)
                joined = await self._container.join(
                    task, lambda number: self._segment_file(run, plan, number), lambda _: self._book.show(run.ref, done)
                )
            await self._store.adopt(keys.job(run.ref, name), output)
        self._metrics.join_duration.observe(time.monotonic() - started)
        await self._store.put(keys.job(run.ref, "report.json"), report_to_json(joined.checks))
        await self._deliver(run, job, keys.job(run.ref, name))
        await self._update(run, lambda now: _succeeded(now, job, plan, joined, run.source, done.stage_seconds))

    async def _deliver(self, run: _Run, job: Job, key: str) -> None:
        """Write the result to its owner's bucket too, where that was asked for; a job whose result can't go there fails."""
        if job.request.result_uri:
            async with contextlib.aclosing(self._store.read(key)) as pieces:
                where = await self._outside.deliver(job, pieces)
            await self._update(run, lambda job: jobs.noted(job, f"The result is also at {where}."))

    @contextlib.asynccontextmanager
    async def _segment_file(self, run: _Run, plan: Plan, number: int) -> AsyncIterator[Path]:
        try:
            async with self._store.local_path(_segment_key(run.ref.owner, plan, number)) as path:
                yield path
        except NotFound as error:
            # Deleted with another job, in the moment in which this one found it.
            raise InternalError(f"segment {number} is gone", field=str(number)) from error

    # ---- states ----

    async def _update(self, run: _Run, change: jobs.Change) -> Job:
        return await self._book.update(run.ref, change, token=run.token)

    async def _fail(self, ref: Ref, token: int, error: ServiceError) -> None:
        pause_s = _FIRST_PAUSE_S
        while True:
            try:
                await self._book.update(ref, lambda job: jobs.failed(job, error, time.time()), token=token)
                return
            except WrongState:
                # Cancelled meanwhile, or somebody else's by now.
                return
            except (StoreUnavailable, StoreFull) as outage:
                log_failure(_log, "the end of a job can't be written yet", outage, pause_s=pause_s)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)


def join_task(source: Source, index: SourceIndex, plan: Plan, path: Path, output: Path) -> JoinTask:
    """How the segments of a plan become its result."""
    cut = (plan.first, plan.end) != (0, index.frames)
    return JoinTask(
        source=path,
        output=output,
        container=plan.container,
        time_base=source.info.time_base,
        pts=index.pts[plan.first : plan.end],
        last_duration=index.end_of(plan.end - 1) - index.pts[plan.end - 1],
        shift=_shift(source, index, plan, cut),
        cut=cut,
        end=index.pts[plan.end] if plan.end < index.frames else None,
        counts=tuple(s.end - s.first for s in plan.segments),
        copied=tuple(s.index for s in source.info.others if kept(s, plan.container)),
        display_matrix=source.info.display_matrix,
        image=source.info.image,
        archive=source.info.container == ARCHIVE,
    )


def _shift(source: Source, index: SourceIndex, plan: Plan, cut: bool) -> int:
    first = index.pts[plan.first]
    if cut or first < 0:
        return first
    # Broadcasts begin at any time of day, results at 0.
    return min(first, math.floor(source.info.start_s / source.info.time_base)) if source.info.origin_free else 0


def _segment_key(owner: str, plan: Plan, number: int) -> str:
    segment = plan.segments[number]
    span = next(s for s in plan.spans if s.first <= segment.first < s.end)
    return keys.segment(owner, plan.span_key(span), segment.name)


def _succeeded(now: Job, joining: Job, plan: Plan, joined: Joined, source: Source, stage_seconds: Mapping[str, float]) -> Job:
    ended, size = time.time(), (plan.restore.width, plan.restore.height)
    # Pictures are turned when they are written; of a video a player is told to.
    turned = plan.container not in VIDEOS and source.info.codec.rotation in (90, 270)
    width, height = size[::-1] if turned else size
    result = jobs.Result(
        filename=f"{PurePath(now.filename).stem or now.job_id}_restored.{plan.container}",
        media_type=MEDIA_TYPES[plan.container],
        size_bytes=joined.size_bytes,
        sha256=joined.sha256,
        width=width,
        height=height,
        frames=joined.frames,
        duration_s=joining.plan.duration_s if joining.plan else 0.0,
        elapsed_s=ended - (now.asked_at or now.created_at),
        stage_seconds=stage_seconds,
    )
    failed = [check.detail for check in joined.checks if not check.passed]
    for detail in failed:
        now = jobs.noted(now, f"A check of the result failed: {detail}.")
    return jobs.succeeded(now, result, ended)
