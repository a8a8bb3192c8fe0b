"""One span: sent to a worker, and again to another one, until its segments are stored."""

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass

from services.common.errors import (
    ChunkOutOfOrder,
    DeadlinePassed,
    Draining,
    FingerprintChanged,
    GpuOutOfMemory,
    JobCancelled,
    ModelNotReady,
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
from services.gateway.jobs import Job, noted
from services.gateway.ports import ContainerFiles, Workers
from services.gateway.progress import ProgressMeter
from services.gateway.scheduler import Work, avoiding
from services.gateway.source import SourceIndex
from services.gateway.sources import Source, Sources
from services.gateway.store.base import Store

_log = logging.getLogger(__name__)
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.3, 10.0
# The worker is well, it only can't take the span now.
_LATER = (QueueFull, Draining, ModelNotReady)
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


@dataclass(slots=True)
class _Tries:
    limit: int
    failed: int = 0
    leaner: int = 0
    pause_s: float = _FIRST_PAUSE_S

    def next_pause(self, error: ServiceError, *, went_on: bool) -> float:
        """Seconds to wait before the next try. Raises ``error`` where there is none."""
        if went_on:
            self.failed, self.pause_s = 0, _FIRST_PAUSE_S
        if restores_leaner(error) and self.leaner < self.limit:
            self.leaner += 1
        elif not isinstance(error, _LATER):
            self.failed += 1
        if self.failed >= self.limit:
            raise type(error)(f"A part of the video failed {self.failed} times, at last so: {error.message}") from error
        pause_s, self.pause_s = max(self.pause_s, error.retry_after_s or 0), min(2 * self.pause_s, _LONGEST_PAUSE_S)
        return pause_s


class SpanRunner:
    """Has spans restored."""

    def __init__(
        self, *, book: JobBook, sources: Sources, store: Store, container: ContainerFiles, workers: Workers,
        dispatcher: Dispatcher, metrics: GatewayMetrics, attempts: int, stall_s: float,
    ) -> None:  # fmt: skip
        """``attempts`` tries without any new segment end a span; a worker gives up after ``stall_s`` without progress."""
        self._book = book
        self._sources = sources
        self._store = store
        self._container = container
        self._workers = workers
        self._dispatcher = dispatcher
        self._metrics = metrics
        self._attempts = attempts
        self._stall_s = stall_s

    async def restore(self, work: JobWork, span: Span) -> None:
        """Return when all segments of a span are stored.

        Raises:
            WorkerUnavailable, FingerprintChanged: nobody could restore it.
            ServiceError: what made it fail, every time or for good.
        """
        wanted, tries = _work(work, span), _Tries(self._attempts)
        self._metrics.segments_reused.inc(len(await self._stored(work, span)))
        while len(stored := await self._stored(work, span)) < len(span.segments):
            async with self._dispatcher.worker_for(wanted, lambda: self._show(work)) as address:
                error = await self._try(work, span, stored, address)
            left = await self._stored(work, span)
            # A worker that was lost after its last segment did all its work.
            if error is not None and len(left) < len(span.segments):
                pause_s = tries.next_pause(error, went_on=len(left) > len(stored))
                await self._take_note(work, span, error, address)
                wanted = wanted if restores_leaner(error) else avoiding(wanted, address)
                await asyncio.sleep(pause_s)
        self._show(work)

    async def _try(self, work: JobWork, span: Span, stored: frozenset[int], address: str) -> ServiceError | None:
        """One attempt: None when the worker says that it is done, or what a new attempt could overcome."""
        work.meter.span_started(time.monotonic())
        try:
            await self._attempt(work, span, stored, address)
        except ServiceError as error:
            if isinstance(error, StoreFull) or not (error.retryable or isinstance(error, _WORTH_A_TRY)):
                raise
            return error
        finally:
            work.meter.span_stopped()
        return None

    async def _attempt(self, work: JobWork, span: Span, stored: frozenset[int], address: str) -> None:
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
            self._show(work)

        with log_context(span=span.index, request_id=task.request_id, worker=address):
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
        if isinstance(error, _LATER):
            return
        if isinstance(error, Unavailable) and not isinstance(error, StoreUnavailable):
            self._workers.suspect(address)
        text = f"Frames {span.first} to {span.end} were sent again: {error.message}"
        await self._book.update(work.job.ref, lambda job: noted(job, text), token=work.token)

    def _show(self, work: JobWork) -> None:
        self._book.show(work.job.ref, work.meter.progress(time.monotonic()))


def restores_leaner(error: ServiceError) -> bool:
    """Whether a worker that ran out of memory asks for the same span again, to restore it with less."""
    return isinstance(error, GpuOutOfMemory) and error.retry_after_s is not None


def _work(work: JobWork, span: Span) -> Work:
    restore = work.plan.restore
    return Work(
        job=work.job.ref,
        span=span.index,
        model=restore.model,
        model_hash=restore.model_hash,
        fingerprint=restore.fingerprint,
        pool=work.plan.pool,
        preview=work.job.request.preview,
        order=work.job.order,
        megapixels=span.frames * restore.width * restore.height / 1e6,
        frame_pixels=restore.width * restore.height,
    )


def _task(work: JobWork, span: Span, stored: frozenset[int], stall_s: float) -> SpanTask:
    index, begin = work.index, span.first - span.context
    return SpanTask(
        job_id=work.job.job_id,
        span=span.index,
        request_id=secrets.token_hex(8),
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
