"""The worker itself: which spans it takes, which wait, which run, and what it says of itself."""

import asyncio
import logging
import math
import secrets
import time
from collections.abc import AsyncIterable
from importlib import metadata

from services.common import tracing
from services.common.errors import DeadlinePassed, Draining, JobCancelled, ModelNotReady, QueueFull, ServiceError
from services.common.fleet import WorkerModel, WorkerStatus
from services.common.logs import log_context
from services.common.media import Packet, SpanTask
from services.common.metrics import InferenceMetrics
from services.inference import models
from services.inference.admission import check_task
from services.inference.fingerprint import code_facts, fingerprint_of
from services.inference.fitting import Fitting
from services.inference.gpu.memory import Machine
from services.inference.groups import Groups
from services.inference.mailbox import Mailbox
from services.inference.messages import SpanEvent, SpanProgress, SpanResult
from services.inference.orders import WAITING, Order
from services.inference.restoring import SpanWork, rank_order
from services.inference.turns import Seat, Turns
from services.inference.video.process import VideoProcesses

_log = logging.getLogger(__name__)
_RETRY_AFTER_S = 2.0
_UNTAKEN_EVENTS = 2
_WAITING_S = 10.0
_SPEED_WEIGHT = 0.5


class SpanRun:
    """A span from its submission to its end."""

    def __init__(self, task: SpanTask, packets: AsyncIterable[Packet]) -> None:
        self.task = task
        self.packets = packets
        self.events: Mailbox[SpanEvent] = Mailbox(_UNTAKEN_EVENTS)
        """What the caller hears, to the result or the error that ended the span."""
        self.reason: ServiceError | None = None
        """Why it was cancelled, where it wasn't the caller's wish."""
        self._job: asyncio.Task[None] | None = None

    def begin(self, job: asyncio.Task[None]) -> None:
        """The task that sees it through."""
        self._job = job

    def cancel(self, reason: ServiceError | None = None) -> None:
        """End it now; the ranks that work on it are free within a slice."""
        if self._job is not None and not self._job.done():
            self.reason = self.reason or reason
            self._job.cancel()


class Engine:
    """One queue, a span at a time on each group of ranks."""

    def __init__(
        self,
        *,
        model: str,
        pool: str,
        groups: Groups,
        videos: VideoProcesses,
        queue_spans: int,
        metrics: InferenceMetrics,
        queue_s: float | None = None,
    ) -> None:
        self._model_name = model
        self._pool = pool
        self._groups = groups
        self._videos = videos
        self._metrics = metrics
        self._queue_s = queue_s
        self._turns = Turns(groups, queue_spans, self._note_change)
        self._runs: dict[SpanRun, asyncio.Task[None]] = {}
        self._releases: set[asyncio.Task[None]] = set()
        self._waiting: set[SpanRun] = set()
        self._changed = asyncio.Event()
        self._draining = False
        self._code_facts: dict[str, str] = {}
        self._encoders: tuple[str, ...] = ()
        self._facts: dict[str, str] = {}
        self._fingerprint = ""
        self._model: WorkerModel | None = None
        self._fitting = Fitting(model, metrics)
        self._speed = 0.0
        self._worker_id = secrets.token_hex(8)
        self._version = metadata.version("seedvr2")
        groups.on_change(self._follow_groups)

    async def start(self) -> None:
        """Start the ranks; :attr:`serving` says when they are ready.

        Raises:
            ServiceError: nothing can be encoded here.
        """
        found, self._encoders = await asyncio.gather(self._videos.facts(), self._videos.encoders())
        encoder = {f"encoder.{name}": value for name, value in found.items()}
        self._code_facts = code_facts() | encoder | {"version": self._version}
        self._groups.start()

    @property
    def serving(self) -> bool:
        """Whether spans are taken."""
        return self._model is not None and not self._draining

    async def wait_change(self) -> None:
        """Wait until :attr:`serving` may have another value."""
        await self._changed.wait()
        self._changed.clear()

    def submit(self, task: SpanTask, packets: AsyncIterable[Packet], deadline_s: float | None = None) -> SpanRun:
        """Take a span; it begins when a group of ranks is free, and is given up ``deadline_s`` from now.

        Raises:
            Draining, ModelNotReady, QueueFull: not now.
            InvalidOption, FingerprintChanged, GpuOutOfMemory: not here.
        """
        if self._draining:
            raise _draining()
        if self._model is None:
            raise self._not_ready()
        check_task(task, self._model, self._fingerprint, self._encoders)
        self._fitting.choose(task, self._available_bytes())
        self._turns.check_room(preview=task.preview)
        run = SpanRun(task, packets)
        job = asyncio.create_task(self._see_through(run, deadline_s))
        run.begin(job)
        self._runs[run] = job
        return run

    def status(self) -> WorkerStatus:
        """What this worker says of itself."""
        ready = self._groups.ready
        return WorkerStatus(
            worker_id=self._worker_id, pool=self._pool, state=self._state(),
            models=(self._model,) if self._model is not None else (), fingerprint=self._fingerprint, facts=self._facts,
            encoders=self._encoders, ranks=len(self._groups.ranks), slots=len(self._groups.all),
            free_slots=self._turns.free if self.serving else 0,
            megapixels_per_second=self._speed or (ready.megapixels_per_second if ready else 0.0),
            memory_bytes=ready.memory_bytes if ready else 0,
            checks=self._groups.checks, detail=self._groups.detail, version=self._version,
        )  # fmt: skip

    async def drain(self, drain_s: float) -> None:
        """Take no more spans, hand back those that wait, let the others end within ``drain_s``, then hand them back too."""
        self._draining = True
        self._note_change()
        for run in self._waiting:
            run.cancel(_draining())
        if self._runs:
            _log.info("draining", extra={"spans": len(self._runs), "drain_s": drain_s})
            await asyncio.wait(self._runs.values(), timeout=drain_s)
        for run in self._runs:
            run.cancel(_draining())
        await asyncio.gather(*self._runs.values(), return_exceptions=True)

    async def close(self) -> None:
        """End all processes."""
        await self._groups.close()
        await asyncio.gather(*self._releases)

    async def _see_through(self, run: SpanRun, deadline_s: float | None) -> None:
        started, outcome = time.monotonic(), "failed"
        ids = {"job_id": run.task.job_id, "span": run.task.span, "request_id": run.task.request_id}
        with log_context(**ids), tracing.span("restore", job_id=run.task.job_id, span=run.task.span) as working:
            try:
                async with asyncio.timeout(deadline_s):
                    result = await self._restore(run)
                    await run.events.put(result)
                await run.events.close()
                outcome = "done"
            except asyncio.CancelledError:
                outcome = "handed_back" if run.reason else "cancelled"
                await run.events.close(run.reason or JobCancelled("The span was cancelled."))
                raise
            except TimeoutError:
                await run.events.close(DeadlinePassed(f"The span was not done within the {deadline_s:.0f} s that it had."))
            except Exception as error:
                # The caller's task raises it, and there it is answered or logged.
                await run.events.close(error)
            finally:
                del self._runs[run]
                working.attributes["outcome"], working.error = outcome, "failed" if outcome == "failed" else ""
                self._metrics.spans.labels(outcome).inc()
                self._metrics.span_duration.observe(time.monotonic() - started)
                _log.info("span ended", extra={"outcome": outcome, "seconds": round(time.monotonic() - started, 3)})

    async def _restore(self, run: SpanRun) -> SpanResult:
        seat, order = await self._turn(run), None
        group = seat.group
        try:
            setting = self._fitting.choose(run.task, group.available_bytes)
            with self._fitting.learning(run.task, setting):
                async with self._videos.open(run.task) as video:
                    order = await group.begin(rank_order(run.task, group.next_number(), video.path, setting))
                    work = SpanWork(run.task, video=video, order=order, emit=run.events.put, metrics=self._metrics)
                    result = await work.run(run.packets)
        finally:
            self._release(seat, order)
        self._note_speed(result)
        return result

    async def _turn(self, run: SpanRun) -> Seat:
        """A seat; while there is none, the caller hears now and then that the span waits. Raises QueueFull after a while."""
        turn, until = self._turns.join(preview=run.task.preview), time.monotonic() + (self._queue_s or math.inf)
        self._waiting.add(run)
        try:
            while not (await asyncio.wait([turn], timeout=min(_WAITING_S, until - time.monotonic())))[0]:
                if time.monotonic() >= until:
                    raise QueueFull("This worker has its hands full; send the span to another one.", retry_after_s=_RETRY_AFTER_S)
                await run.events.put(SpanProgress(stage=WAITING, frames=0, seconds=_WAITING_S))
        except (asyncio.CancelledError, QueueFull):
            self._turns.leave(turn)
            raise
        finally:
            self._waiting.discard(run)
        return turn.result()

    def _release(self, seat: Seat, order: Order | None) -> None:
        release = asyncio.create_task(self._stop_and_give_back(seat, order))
        self._releases.add(release)
        release.add_done_callback(self._releases.discard)

    async def _stop_and_give_back(self, seat: Seat, order: Order | None) -> None:
        if order is not None:
            await seat.group.stop(order)
        if self._model is not None:
            self._model = self._fitting.announce(self._model, self._available_bytes())
        self._turns.give_back(seat)

    def _follow_groups(self) -> None:
        ready = self._groups.ready
        self._model = None
        if ready is not None:
            # Every group has as many ranks as the first.
            self._fitting.machine = Machine(dtype=ready.dtype, passes=ready.passes, ranks=len(self._groups.all[0].ranks))
            self._model = self._fitting.announce(models.describe(self._model_name, ready), self._available_bytes())
            self._facts = self._code_facts | ready.facts
            self._fingerprint = fingerprint_of(self._facts)
            self._metrics.model_info.clear()
            model = self._model
            self._metrics.model_info.labels(model.name, model.hash, model.dtype, model.weight_format).set(1)
            self._metrics.info.clear()
            self._metrics.info.labels(self._pool, self._fingerprint, ready.device, self._version).set(1)
        else:
            for run in self._waiting:
                run.cancel(self._not_ready())
        self._note_change()

    def _available_bytes(self) -> int:
        """What the roomiest group has: spans wait for any of them."""
        return max(group.available_bytes for group in self._groups.all)

    def _note_change(self) -> None:
        self._metrics.ready.set(self.serving)
        self._metrics.queue.set(self._turns.waiting)
        self._metrics.in_flight.set(self._turns.busy)
        self._changed.set()

    def _note_speed(self, result: SpanResult) -> None:
        before = self._speed or result.megapixels_per_second
        self._speed = before + _SPEED_WEIGHT * (result.megapixels_per_second - before)

    def _not_ready(self) -> ModelNotReady:
        detail = self._groups.detail or "loading the model"
        return ModelNotReady(f"This worker can't restore now: {detail}.", retry_after_s=_RETRY_AFTER_S)

    def _state(self) -> str:
        if self._draining:
            return "draining"
        if self._model is None:
            return "broken" if self._groups.has_failed else "starting"
        return "busy" if not self._turns.free else "ready"


def _draining() -> Draining:
    return Draining("This worker is about to stop; send the span to another one.")
