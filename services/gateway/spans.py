"""One span: sent to a worker, and again to another one, until its segments are stored."""

import asyncio
import contextlib
import logging
import random
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.common import tracing
from services.common.errors import (
    ChunkOutOfOrder,
    DeadlinePassed,
    FingerprintChanged,
    JobCancelled,
    QueueFull,
    ServiceError,
    StoreFull,
    StoreUnavailable,
    Unavailable,
    WorkerBroken,
)
from services.common.logs import log_context
from services.common.media import SpanTask
from services.common.metrics import GatewayMetrics
from services.common.plan import Plan, Segment, Span
from services.gateway import keys
from services.gateway.book import JobBook
from services.gateway.dispatch import Dispatcher
from services.gateway.identity.usage import DeviceTime, UsageBook
from services.gateway.jobs import Job, lost_on, noted, span_lost, span_went_on
from services.gateway.ports import ContainerFiles, Workers
from services.gateway.progress import ProgressMeter
from services.gateway.scheduler import Work, avoiding
from services.gateway.source import SourceIndex
from services.gateway.sources import Source, Sources
from services.gateway.store.base import Store
from services.gateway.tries import LATER, Tries, restores_leaner

_log = logging.getLogger(__name__)
# Not retryable for a caller, but another try, perhaps elsewhere, can go well.
_WORTH_A_TRY = (ChunkOutOfOrder, FingerprintChanged, DeadlinePassed, JobCancelled)


@dataclass(frozen=True, slots=True, kw_only=True)
class JobWork:
    """What the spans of a job have in common."""

    job: Job
    """Whose they are."""

    token: int
    """Of the lease."""

    plan: Plan
    """What is to be done."""

    source: Source
    """Where the packets come from."""

    index: SourceIndex
    """Of the source."""

    meter: ProgressMeter
    """Adds up what happens."""


class SpanRunner:
    """Has spans restored."""

    def __init__(
        self, *, book: JobBook, sources: Sources, store: Store, container: ContainerFiles, workers: Workers,
        dispatcher: Dispatcher, usage: UsageBook, metrics: GatewayMetrics, attempts: int, stall_s: float,
    ) -> None:  # fmt: skip
        """``attempts`` tries without any new segment end a span; a worker gives up after ``stall_s`` without progress."""
        self._book = book
        self._sources = sources
        self._store = store
        self._container = container
        self._workers = workers
        self._dispatcher = dispatcher
        self._usage = usage
        self._metrics = metrics
        self._attempts = attempts
        self._stall_s = stall_s

    async def restore(self, work: JobWork, span: Span) -> None:
        """Return when all segments of a span are stored.

        Raises:
            WorkerUnavailable, FingerprintChanged: nobody could restore it.
            ServiceError: what made it fail, every time or for good.
        """
        wanted, tries, gpu_seconds = _work(work, span), self._tries(work, span), 0.0
        self._metrics.segments_reused.inc(len(await self._stored(work, span)))
        while len(stored := await self._stored(work, span)) < len(span.segments):
            began = time.monotonic()
            async with self._dispatcher.worker_for(wanted, lambda: self._show(work)) as address:
                self._metrics.span_wait.observe(time.monotonic() - began)
                spent = self._device_time(address)
                error = await self._try(work, span, stored, address, spent)
            left = await self._stored(work, span)
            self._dispatcher.charge(wanted, wanted.megapixels * len(left - stored) / len(span.segments))
            # What was lost with a worker is nobody's to pay.
            gpu_seconds += spent.seconds if len(left) > len(stored) else 0.0
            # A worker that was lost after its last segment did all its work.
            if error is not None and len(left) < len(span.segments):
                await self._note_loss(work, span, error, address, went_on=len(left) > len(stored))
                pause_s = tries.next_pause(error, address, went_on=len(left) > len(stored), chance=random.random())  # noqa: S311
                await self._take_note(work, span, error, address)
                wanted = wanted if restores_leaner(error) else avoiding(wanted, address)
                await asyncio.sleep(pause_s)
        key = work.plan.span_key(span)
        await self._usage.span_done(work.job, key, gpu_seconds=gpu_seconds, megapixels=wanted.megapixels)
        self._show(work)

    def _device_time(self, address: str) -> DeviceTime:
        status = next((view.status for view in self._workers.views() if view.address == address), None)
        return DeviceTime(devices=status.ranks / max(1, status.slots) if status else 1.0)

    def _tries(self, work: JobWork, span: Span) -> Tries:
        """What earlier gateways lost on a span counts."""
        lost = lost_on(self._book.get(work.job.ref), span.index)
        return Tries(limit=self._attempts, lost=lost, what=f"The part of the video from frame {span.first} to {span.end}")

    async def _note_loss(self, work: JobWork, span: Span, error: ServiceError, address: str, *, went_on: bool) -> None:
        """Write down, for whichever gateway goes on, that a worker was lost in the middle of a span."""
        if went_on:
            await self._book.update(work.job.ref, lambda job: span_went_on(job, span.index), token=work.token)
        if isinstance(error, WorkerBroken):
            await self._book.update(work.job.ref, lambda job: span_lost(job, span.index, address), token=work.token)

    async def _try(
        self, work: JobWork, span: Span, stored: frozenset[int], address: str, spent: DeviceTime
    ) -> ServiceError | None:
        """One attempt: None when the worker says that it is done, or what a new attempt could overcome."""
        work.meter.span_started(time.monotonic())
        try:
            await self._attempt(work, span, stored, address, spent)
        except ServiceError as error:
            if isinstance(error, StoreFull) or not (error.retryable or isinstance(error, _WORTH_A_TRY)):
                raise
            return error
        finally:
            work.meter.span_stopped()
        return None

    async def _attempt(self, work: JobWork, span: Span, stored: frozenset[int], address: str, spent: DeviceTime) -> None:
        task = _task(work, span, stored, self._stall_s)

        async def keep(segment: Segment, data: bytes) -> None:
            if segment not in span.segments:
                raise WorkerBroken(f"The worker at {address} sent frames [{segment.first}, {segment.end}) that nobody asked for.")
            await self._store.write(keys.segment(work.job.owner, work.plan.span_key(span), segment.name), _once(data))
            self._metrics.segments.inc()
            work.meter.segment_stored(span.index, segment.end - segment.first)
            self._show(work)

        def note(stage: str, frames: int, seconds: float) -> None:
            work.meter.stage_done(span.index, stage, frames, seconds)
            spent.note(stage, seconds)
            self._show(work)

        with (
            log_context(span=span.index, worker=address),
            tracing.span("restore span", kind="client", job_id=work.job.job_id, span=span.index, worker=address),
        ):
            _log.info("span sent", extra={"frames": span.frames, "stored": len(stored)})
            async with self._sources.file(work.source.upload.ref) as path:
                packets = self._container.read(path, work.source.info, work.index, span.first - span.context, span.end)
                async with contextlib.aclosing(packets):
                    outcome = await self._workers.restore(address, task, packets, keep, note)
            _log.info("span done", extra={"concealed_frames": outcome.concealed_frames})
        if len(await self._stored(work, span)) < len(span.segments):
            raise WorkerBroken(f"The worker at {address} said that it was done, and parts were missing.")
        if outcome.concealed_frames:
            text = f"{outcome.concealed_frames} frames from {span.first} to {span.end} could not be decoded; neighbours stand in."
            await self._book.update(work.job.ref, lambda job: noted(job, text), token=work.token)

    async def _stored(self, work: JobWork, span: Span) -> frozenset[int]:
        """First frames of the segments that are there."""
        found = frozenset(await self._store.keys(keys.segment(work.job.owner, work.plan.span_key(span), "")))
        there = [s for s in span.segments if keys.segment(work.job.owner, work.plan.span_key(span), s.name) in found]
        work.meter.span_found(span.index, sum(s.end - s.first for s in there), len(there))
        return frozenset(s.first for s in there)

    async def _take_note(self, work: JobWork, span: Span, error: ServiceError, address: str) -> None:
        reason = type(error).__name__
        _log.warning("span failed and is sent again", extra={"span": span.index, "worker": address, "reason": reason})
        self._metrics.span_retries.labels(reason).inc()
        if isinstance(error, QueueFull):
            self._dispatcher.note_refusal()
        if isinstance(error, LATER):
            return
        if isinstance(error, Unavailable) and not isinstance(error, StoreUnavailable):
            self._workers.suspect(address)
        text = f"Frames {span.first} to {span.end} were sent again: {error.message}"
        await self._book.update(work.job.ref, lambda job: noted(job, text), token=work.token)

    def _show(self, work: JobWork) -> None:
        self._book.show(work.job.ref, work.meter.progress(time.monotonic()))


def _work(work: JobWork, span: Span) -> Work:
    restore = work.plan.restore
    return Work(
        job=work.job.ref,
        span=span.index,
        model=restore.model,
        model_hash=restore.model_hash,
        fingerprint=restore.fingerprint,
        pool=work.plan.pool,
        encoder=restore.encoder,
        preview=work.job.request.preview,
        order=work.job.order,
        megapixels=span.frames * restore.width * restore.height / 1e6,
        width=restore.width,
        height=restore.height,
    )


def _task(work: JobWork, span: Span, stored: frozenset[int], stall_s: float) -> SpanTask:
    index, begin = work.index, span.first - span.context
    return SpanTask(
        job_id=work.job.job_id,
        span=span.index,
        request_id=tracing.request_id() or secrets.token_hex(8),
        codec=work.source.info.codec,
        time_base=work.source.info.time_base,
        first_index=begin,
        frame_pts=index.pts[begin : span.end],
        last_duration=index.end_of(span.end - 1) - index.pts[span.end - 1],
        by_order=index.by_order,
        context_frames=span.context,
        segments=span.segments,
        stored=stored,
        plan=work.plan.restore,
        stall_timeout_s=stall_s,
        preview=work.job.request.preview,
        cuts=span.cuts,
    )


async def _once(data: bytes) -> AsyncIterator[bytes]:
    yield data
