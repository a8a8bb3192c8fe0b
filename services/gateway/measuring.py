"""What is measured now and then, beside what is counted when it happens."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from services.common.encoders import named_encoder
from services.common.fleet import has_encoder
from services.common.metrics import GatewayMetrics
from services.gateway.book import JobBook
from services.gateway.dispatch import Asking, Dispatcher, candidate_of
from services.gateway.jobs import Job, State
from services.gateway.ports import Workers, WorkerView
from services.gateway.scheduler import Candidate, Work, can_restore, kind_of

_MEASURE_S = 1.0


class Measuring:
    """Looks at jobs, queue and workers."""

    def __init__(self, *, book: JobBook, workers: Workers, dispatcher: Dispatcher, metrics: GatewayMetrics) -> None:
        self._book = book
        self._workers = workers
        self._dispatcher = dispatcher
        self._metrics = metrics

    async def always(self) -> None:
        """:meth:`once`, again and again."""
        while True:
            self.once()
            await asyncio.sleep(_MEASURE_S)

    def once(self) -> None:
        """Show how everything is."""
        jobs, views = self._book.active(), self._workers.views()
        states = Counter(job.state for job in jobs)
        for state in State:
            if not state.ended:
                self._metrics.jobs.labels(state.value).set(states[state])
        self._metrics.oldest_job_age.set(oldest_age_s(jobs, time.time()))
        self._metrics.workers.clear()
        for view in views:
            self._metrics.workers.labels(view.state).inc()
        self._metrics.dispatched.set(self._dispatcher.running)
        self._measure_queue(views)

    def _measure_queue(self, views: Sequence[WorkerView]) -> None:
        # A pool that has nothing to do says so: an autoscaler takes no number for no answer.
        megapixels = dict.fromkeys({view.pool for view in views}, 0.0)
        queued = dict.fromkeys(megapixels, 0)
        homes = Homes(views)
        waiting = [(homes.of_work(work), work) for work in self._dispatcher.waiting()]
        asking = [(homes.of_asking(each), each.megapixels) for each in self._dispatcher.asking]
        for pool, amount in [*((pool, work.megapixels) for pool, work in waiting), *asking]:
            megapixels[pool] = megapixels.get(pool, 0.0) + amount
        for pool in [*{work.job: pool for pool, work in waiting}.values(), *(pool for pool, _ in asking)]:
            queued[pool] = queued.get(pool, 0) + 1
        for gauge, values in ((self._metrics.queued_megapixels, megapixels), (self._metrics.queued_jobs, queued)):
            gauge.clear()
            for pool, value in values.items():
                gauge.labels(pool).set(value)


class Homes:
    """Where work counts as waiting, so that autoscalers start workers in one pool and not in each that could take it.

    That is the pool that it names; else of those whose workers, there or gone, could restore it, the first by name; else, where
    none could, of those with its model.
    """

    def __init__(self, views: Iterable[WorkerView]) -> None:
        """``views``: of all workers now."""
        self._candidates = [replace(candidate_of(view), ready=True) for view in views]
        self._known: dict[tuple[str, ...], str] = {}

    def of_work(self, work: Work) -> str:
        """The pool of a span; empty: none has its model."""
        # A long film has a thousand spans alike.
        key = kind_of(work)
        if key not in self._known:
            able = [each for each in self._candidates if can_restore(work, each)]
            self._known[key] = work.pool or _first(able) or _first(self._with(work.model))
        return self._known[key]

    def of_asking(self, asking: Asking) -> str:
        """The pool of a job that is not planned yet; empty: none has its model."""
        wanted = named_encoder(asking.encoder).names
        serving = self._with(asking.model)
        return asking.pool or _first(each for each in serving if has_encoder(each.encoders, wanted)) or _first(serving)

    def _with(self, model: str) -> list[Candidate]:
        return [each for each in self._candidates if any(served.name == model for served in each.models)]


def _first(candidates: Iterable[Candidate]) -> str:
    return min((each.pool for each in candidates), default="")


def oldest_age_s(jobs: Iterable[Job], now: float) -> float:
    """Of the job that has been waiting or running longest; 0 where there is none."""
    begun = (job.asked_at or job.created_at for job in jobs if not job.state.ended)
    return max(0.0, now - min(begun, default=now))
