"""The whole page as Gradio blocks: which of its two parts is shown, and what leads from one to the other."""

from typing import Any

import gradio as gr

from services.common.client import GatewayClient
from services.common.errors import ServiceError
from services.common.metrics import UiMetrics
from services.ui import home_cards
from services.ui.home import Home, Updates, fragment
from services.ui.job_page import JobPage
from services.ui.links import Links
from services.ui.settings import UiSettings
from services.ui.words import error_words

# The address follows what is shown, so that a reload, a bookmark or another device finds the job again.
_SHOW_JOB = "(id) => { window.seedvr2.showJob(id); }"
_SHOW_HOME = "(id) => { if (!id) window.seedvr2.showHome(); }"
_CONFIRM_DELETE = "(id) => window.confirm('Delete this job and its result? This cannot be undone.') ? id : ''"


def build_page(client: GatewayClient, settings: UiSettings, metrics: UiMetrics) -> gr.Blocks:
    """All components and events, to be mounted."""
    blocks: gr.Blocks
    with gr.Blocks(title="SeedVR2 – video restoration", analytics_enabled=False, fill_width=False) as blocks:
        _Page(client, settings, metrics).connect(blocks)
    return blocks


class _Page:
    def __init__(self, client: GatewayClient, settings: UiSettings, metrics: UiMetrics) -> None:
        self._metrics = metrics
        self._bar = fragment(home_cards.top_bar(Links(root_path=settings.root_path), None), elem_id="top")
        self._home = Home(client, settings, metrics)
        self._job = JobPage(client, settings)
        home = self._home
        self._outputs = [self._bar, home.view, home.model, home.jobs, home.notice, *self._job.outputs]

    def connect(self, blocks: gr.Blocks) -> None:
        home, job = self._home, self._job
        home.connect(self._bar)
        job.connect()
        options: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        follow: dict[str, Any] = {"fn": None, "inputs": job.job_id, "outputs": None, **options}
        blocks.load(self._open, None, self._outputs, **options)
        home.start.click(self._start, home.form, self._outputs, **options).then(js=_SHOW_JOB, **follow)
        home.preview.click(self._start_preview, home.form, self._outputs, **options).then(js=_SHOW_JOB, **follow)
        job.whole.click(self._start_whole, job.job_id, self._outputs, **options).then(js=_SHOW_JOB, **follow)
        job.delete.click(self._delete, job.job_id, self._outputs, js=_CONFIRM_DELETE, **options).then(js=_SHOW_HOME, **follow)

    async def _open(self, request: gr.Request) -> Updates:
        job_id = str(request.query_params.get("job", ""))
        if not job_id:
            return await self._show_home()
        return await self._show_job(job_id)

    async def _show_home(self, trouble: str = "") -> Updates:
        updates = self._job.close() | await self._home.open(self._bar)
        return updates | {self._home.notice: home_cards.notice(trouble)} if trouble else updates

    async def _show_job(self, job_id: str) -> Updates:
        try:
            updates = self._home.close() | await self._job.open(job_id)
        except ServiceError as error:
            return await self._show_home(error_words(error))
        _, bar = await self._home.refresh()
        return updates | {self._bar: bar}

    async def _start(self, *form: Any) -> Updates:
        return await self._follow(*await self._home.create(*form))

    async def _start_preview(self, *form: Any) -> Updates:
        return await self._follow(*await self._home.create_preview(*form))

    async def _follow(self, job_id: str, notice: str) -> Updates:
        return await self._show_job(job_id) if job_id else {self._home.notice: notice}

    async def _start_whole(self, job_id: str) -> Updates:
        try:
            created = await self._job.create_whole(job_id)
        except ServiceError as error:
            return {self._job.notice: home_cards.notice(error_words(error))}
        self._metrics.jobs.inc()
        return await self._show_job(created)

    async def _delete(self, job_id: str) -> Updates:
        if not job_id:
            return {self._job.notice: ""}
        try:
            await self._job.remove(job_id)
        except ServiceError as error:
            return {self._job.notice: home_cards.notice(error_words(error))}
        return await self._show_home()
