"""The gateway's parts, put together over whatever store, workers, container and leases it is given."""

import asyncio
import importlib.metadata

from starlette.types import ASGIApp

from services.common.metrics import GatewayMetrics
from services.gateway.admission import QueueLimits
from services.gateway.book import JobBook
from services.gateway.buckets.settings import BucketSettings
from services.gateway.catalogue import Catalogue
from services.gateway.container.adapter import ContainerLimits
from services.gateway.control import ControlSettings, JobControl
from services.gateway.cuts import CutFinder
from services.gateway.dispatch import Dispatcher, Patience
from services.gateway.driving import Driver, DriverSettings
from services.gateway.identity.quotas import Quotas
from services.gateway.identity.usage import UsageBook
from services.gateway.measuring import Measuring
from services.gateway.outside_setup import make_outside
from services.gateway.planning import PlanLimits
from services.gateway.ports import ContainerFiles, Leases, Workers
from services.gateway.rest.app import Access, build_app
from services.gateway.rest.backend import Backend
from services.gateway.restore import Restorer
from services.gateway.results import Results
from services.gateway.servicer import GatewayServicer
from services.gateway.settings import GatewaySettings
from services.gateway.sources import Sources
from services.gateway.spans import SpanRunner
from services.gateway.store.base import Store
from services.gateway.sweeping import Sweeper, SweepSettings
from services.gateway.uploads import Uploads
from services.gateway.web.settings import WebSettings


class GatewayService:
    """Everything behind the gRPC server."""

    def __init__(
        self, *, settings: GatewaySettings, store: Store, workers: Workers, container: ContainerFiles, leases: Leases,
        metrics: GatewayMetrics, web: WebSettings | None = None, buckets: BucketSettings | None = None, quota_file: str = "",
    ) -> None:  # fmt: skip
        """``quota_file``: what callers may use; empty: as much as they want. Raises SettingsError: it can't be used."""
        limits = plan_limits(settings)
        self._book = book = JobBook(store, fresh_s=settings.fresh_s)
        usage = UsageBook(store)
        quotas = Quotas(quota_file, book, usage)
        uploads = Uploads(store, metrics, max_bytes=settings.max_upload_bytes, users=book.users_of)
        sources = Sources(uploads, store, container)
        self._webhooks, self._outside = make_outside(
            web or WebSettings(), buckets or BucketSettings(), store=store, book=book,
            uploads=uploads, metrics=metrics, poll_s=settings.adopt_s,
            max_bytes=settings.max_upload_bytes,
        )  # fmt: skip
        catalogue = Catalogue(workers, settings.default_model)
        patience = Patience(worker_wait_s=settings.worker_wait_s, fingerprint_wait_s=settings.fingerprint_wait_s)
        dispatcher = Dispatcher(workers, patience, poll_s=settings.worker_poll_s)
        spans = SpanRunner(
            book=book, sources=sources, store=store, container=container, workers=workers, dispatcher=dispatcher,
            usage=usage, metrics=metrics, attempts=settings.span_attempts, stall_s=settings.span_stall_s,
        )  # fmt: skip
        restorer = Restorer(
            book=book, sources=sources, store=store, container=container, dispatcher=dispatcher, spans=spans, limits=limits,
            cuts=CutFinder(sources=sources, store=store, container=container, limit_s=settings.cuts_s), usage=usage,
            metrics=metrics, outside=self._outside, store_wait_s=settings.store_wait_s,
        )  # fmt: skip
        self._driver = driver = Driver(
            book=book, store=store, restorer=restorer, leases=leases, metrics=metrics,
            settings=DriverSettings(adopt_s=settings.adopt_s, share_s=settings.share_s),
        )  # fmt: skip
        self._control = JobControl(
            book=book, sources=sources, store=store, catalogue=catalogue, driver=driver, limits=limits,
            settings=_control_settings(settings), quotas=quotas, outside=self._outside,
        )  # fmt: skip
        self._measuring = Measuring(book=book, workers=workers, dispatcher=dispatcher, metrics=metrics)
        metrics.info.labels(version()).set(1)
        results = Results(book=book, store=store, sources=sources, container=container, metrics=metrics)
        self._sweeper = Sweeper(
            store=store, control=self._control, uploads=uploads, leases=leases, settings=_sweep_settings(settings),
            metrics=metrics,
        )  # fmt: skip
        self.servicer = GatewayServicer(
            uploads=uploads, book=book, control=self._control, catalogue=catalogue, workers=workers, metrics=metrics,
            results=results, version=version(),
            quotas=quotas,
        )  # fmt: skip
        """Answers the calls."""
        self._backend = Backend(
            uploads=uploads, book=book, control=self._control, results=results, catalogue=catalogue, metrics=metrics,
            quotas=quotas, version=version(), max_upload_bytes=settings.max_upload_bytes, link_s=settings.rest_link_s,
        )  # fmt: skip
        self._ready = False
        self._tasks: list[asyncio.Task[None]] = []

    async def load(self) -> None:
        """Read which jobs there are to look after. Raises StoreUnavailable."""
        await self._book.scan()

    def rest_app(self, access: Access) -> ASGIApp:
        """Answers the same over HTTP."""
        return build_app(self._backend, access, lambda: self._ready)

    async def start(self) -> None:
        """Take up the jobs that have not ended. Raises StoreUnavailable."""
        await self._driver.adopt()
        always = (
            self._driver.adopt_always(),
            self._driver.share_always(),
            self._sweeper.sweep_always(),
            self._measuring.always(),
        )
        self._tasks = [asyncio.create_task(each) for each in always]
        if self._webhooks is not None:
            self._tasks.append(asyncio.create_task(self._webhooks.sweep_always()))
        self._ready = True

    async def stop(self) -> None:
        """Let go of all jobs, so that they go on after the next start; whoever watches one is told."""
        self._ready = False
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._book.close()
        await self._driver.close()
        if self._webhooks is not None:
            await self._webhooks.close()

    def close(self) -> None:
        """Give back what requests need; after the last one."""
        self._outside.close()


def plan_limits(settings: GatewaySettings) -> PlanLimits:
    """What plans may be."""
    return PlanLimits(
        max_source_pixels=settings.max_source_pixels, max_output_pixels=settings.max_output_pixels,
        max_duration_s=settings.max_duration_s, preview_max_s=settings.preview_max_s, span_s=settings.span_seconds,
        span_work_s=settings.span_work_s, segment_frames=settings.segment_frames, encoder_preset=settings.encoder_preset,
    )  # fmt: skip


def container_limits(settings: GatewaySettings) -> ContainerLimits:
    """What the processes that read files may use."""
    return ContainerLimits(
        memory_bytes=settings.container_memory_bytes, cpu_s=settings.container_cpu_s, silence_s=settings.container_silence_s,
        processes=settings.container_processes, max_pixels=settings.max_source_pixels,
    )  # fmt: skip


def _control_settings(settings: GatewaySettings) -> ControlSettings:
    return ControlSettings(
        queue=QueueLimits(jobs=settings.max_active_jobs, owner_jobs=settings.max_owner_jobs), index_s=settings.index_s,
        first_answer_s=settings.first_answer_s,
    )  # fmt: skip


def _sweep_settings(settings: GatewaySettings) -> SweepSettings:
    return SweepSettings(
        sweep_s=settings.sweep_s, keep_jobs_s=settings.keep_jobs_s, keep_uploads_s=settings.keep_uploads_s,
        keep_unfinished_s=settings.keep_unfinished_s,
    )  # fmt: skip


def version() -> str:
    """Of this software."""
    try:
        return importlib.metadata.version("seedvr2")
    except importlib.metadata.PackageNotFoundError:
        return "unknown"
