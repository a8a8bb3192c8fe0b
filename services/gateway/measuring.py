"""What is measured now and then, beside what is counted when it happens."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterable, Sequence

from services.common.metrics import GatewayMetrics
from services.gateway.book import JobBook
from services.gateway.dispatch import Dispatcher
from services.gateway.jobs import Job, State
from services.gateway.ports import Workers, WorkerView

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
        waiting, asking = self._dispatcher.waiting(), self._dispatcher.asking
        # A pool that has nothing to do says so: an autoscaler takes no number for no answer.
        megapixels = dict.fromkeys({view.pool for view in views}, 0.0)
        queued = dict.fromkeys(megapixels, 0)
        for work in waiting:
            pool = home_pool(work.pool, work.model, views)
            megapixels[pool] = megapixels.get(pool, 0.0) + work.megapixels
        for model, pool in [*{work.job: (work.model, work.pool) for work in waiting}.values(), *asking]:
            pool = home_pool(pool, model, views)
            queued[pool] = queued.get(pool, 0) + 1
        for gauge, values in ((self._metrics.queued_megapixels, megapixels), (self._metrics.queued_jobs, queued)):
            gauge.clear()
            for pool, value in values.items():
                gauge.labels(pool).set(value)


def home_pool(pool: str, model: str, views: Iterable[WorkerView]) -> str:
    """Where work counts as waiting: in the pool that it names, else in the first, by name, that serves or served its model."""
    serving = (view.pool for view in views if view.status and any(served.name == model for served in view.status.models))
    return pool or min(serving, default="")


def oldest_age_s(jobs: Iterable[Job], now: float) -> float:
    """Of the job that has been waiting or running longest; 0 where there is none."""
    begun = (job.asked_at or job.created_at for job in jobs if not job.state.ended)
    return max(0.0, now - min(begun, default=now))
