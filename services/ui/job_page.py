"""The page of one job: progress, result, and what can be done with it."""

from typing import Any

import gradio as gr

from services.common.client import ENDED_STATES, GatewayClient
from services.common.errors import NotFound, ServiceError, Unavailable
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.words import STATES
from services.ui import home_cards, job_cards
from services.ui.compare import slider_pictures
from services.ui.form import is_preview, whole_request
from services.ui.home import Updates, fragment
from services.ui.links import Links, checked_id
from services.ui.markup import tag
from services.ui.settings import UiSettings
from services.ui.soon import soon
from services.ui.words import error_words

_TICK_S = 1.0
_DONE = STATES[pb.JOB_STATE_SUCCEEDED]


class JobPage:
    """Components and what they do. Built inside a gr.Blocks context.

    The job's id and what was last shown live in hidden fields of the browser's page, so a page outlives a restart of this
    server.
    """

    def __init__(self, client: GatewayClient, settings: UiSettings) -> None:
        self._client = client
        self._links = Links(root_path=settings.root_path)
        self.job_id = gr.Textbox(visible=False, label="Job")
        self._shown = gr.Textbox(visible=False, label="Shown state")
        with gr.Column(visible=False, elem_id="job") as self.view:
            self._headline = fragment("", elem_id="headline")
            with gr.Column(elem_classes="sv-card"):
                self._trouble = fragment("", elem_id="trouble")
                self._progress = fragment("", elem_id="progress")
                self._build_buttons()
                self.notice = fragment("", elem_id="job-notice")
            self._build_live()
            self._build_result()
            with gr.Column(elem_classes="sv-card"), gr.Accordion("Details", open=False, elem_id="details"):
                self._details = fragment("")
        self._timer = gr.Timer(_TICK_S, active=False)
        self._refreshed = [
            self._headline, self._trouble, self._progress, self._download, self._picture, self._player, self._live_card,
            self._result, self._players, self._play_card, self._frame, self._details, self._shown, self._timer,
            self.cancel, self.retry, self.whole, self.delete,
        ]  # fmt: skip
        self.outputs = [self.job_id, self.view, self.notice, *self._refreshed]

    def _build_buttons(self) -> None:
        with gr.Row(elem_classes="sv-actions"):
            self._download = fragment("", elem_id="download-card")
            self.whole = gr.Button("Restore the whole video", variant="primary", visible=False, elem_id="whole")
            self.cancel = gr.Button("Cancel", visible=False, elem_id="cancel")
            self.retry = gr.Button("Try again", variant="primary", visible=False, elem_id="retry")
            self.delete = gr.Button("Delete", visible=False, elem_id="delete")

    def _build_live(self) -> None:
        with gr.Column(elem_classes="sv-card", visible=False) as self._live_card, gr.Row(elem_id="live", elem_classes="sv-pair"):
            self._picture = fragment("")
            self._player = fragment("")

    def _build_result(self) -> None:
        with gr.Column(visible=False, elem_id="result") as self._result:
            with gr.Column(elem_classes="sv-card"):
                fragment(tag("h2", "Before and after"))
                self._slider = gr.ImageSlider(
                    label="Before on the left, after on the right", show_label=False, interactive=False, max_height=720,
                    elem_id="compare",
                )  # fmt: skip
                self._frame = gr.Slider(1, 2, value=1, step=1, label="Frame", elem_id="frame")
            with gr.Column(elem_classes="sv-card") as self._play_card:
                fragment(tag("h2", "Play"))
                self._players = fragment("", elem_id="players")

    def connect(self) -> None:
        """Wire the events that stay on this page."""
        options: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        self._timer.tick(self._tick, [self.job_id, self._shown], self._refreshed, **options)
        pictures: dict[str, Any] = {"trigger_mode": "always_last", "postprocess": False, **options}
        self._frame.change(self._compare, [self.job_id, self._frame], self._slider, **pictures)
        # Not through the frame chooser: its value may reach the browser's page after the state's.
        self._shown.change(self._compare_middle, [self.job_id, self._shown], self._slider, **pictures)
        changed = [self.notice, *self._refreshed]
        self.cancel.click(self._cancel, self.job_id, changed, **options)
        self.retry.click(self._retry, self.job_id, changed, **options)

    async def open(self, job_id: str) -> Updates:
        """Show this page with a job.

        Raises:
            InvalidOption, NotFound: there is no such job.
        """
        updates: Updates = {self.view: gr.update(visible=True), self.job_id: checked_id(job_id), self.notice: ""}
        try:
            return updates | await self._show(await soon(self._client.get_job(job_id)), "")
        except Unavailable as error:
            trouble = home_cards.notice(error_words(error))
            return updates | {self._trouble: trouble, self._shown: "", self._timer: gr.Timer(active=True)}

    def close(self) -> Updates:
        """Hide this page."""
        return {self.view: gr.update(visible=False), self.job_id: "", self._shown: "", self._timer: gr.Timer(active=False)}

    async def create_whole(self, job_id: str) -> str:
        """Create the job that this preview was for; its id.

        Raises:
            ServiceError: what the gateway said.
        """
        preview = await self._client.get_job(job_id)
        return (await self._client.create_job(whole_request(preview.request))).job_id

    async def remove(self, job_id: str) -> None:
        """Delete the job and its result.

        Raises:
            ServiceError: what the gateway said.
        """
        await self._client.delete_job(job_id)

    async def _tick(self, job_id: str, shown: str) -> Updates:
        if not job_id:
            return {self._timer: gr.Timer(active=False)}
        try:
            return await self._show(await soon(self._client.get_job(job_id)), shown)
        except NotFound as error:
            return {self._trouble: home_cards.notice(error_words(error)), self._timer: gr.Timer(active=False)}
        except ServiceError as error:
            # What is shown stays as it was; the next tick tries again.
            return {self._trouble: home_cards.notice(error_words(error))}

    async def _show(self, job: pb.Job, shown: str) -> Updates:
        """Progress always; the rest when the state is another one than ``shown``."""
        player = job_cards.live_player(job, self._links)
        updates: Updates = {
            self._trouble: "",
            self._progress: job_cards.progress_card(job),
            self._picture: job_cards.live_picture(job, self._links),
            self._player: player,
            self._live_card: gr.update(visible=bool(player)),
        }
        state = f"{STATES.get(job.state, '')} {bool(job.plan.frames)} {_middle_frame(job)}"
        if state == shown:
            return updates
        updates |= {self._shown: state, self._headline: job_cards.headline(job, self._links)}
        updates |= self._buttons(job) | self._shown_result(job)
        report = await self._report(job)
        return updates | {
            self._details: job_cards.details(job, report),
            self._timer: gr.Timer(active=job.state not in ENDED_STATES),
        }

    def _buttons(self, job: pb.Job) -> Updates:
        ended, succeeded = job.state in ENDED_STATES, job.state == pb.JOB_STATE_SUCCEEDED
        return {
            self.cancel: gr.update(visible=not ended),
            self.retry: gr.update(visible=ended and not succeeded),
            self.whole: gr.update(visible=succeeded and is_preview(job.request)),
            self.delete: gr.update(visible=ended),
            self._download: job_cards.download_card(job, self._links),
        }

    def _shown_result(self, job: pb.Job) -> Updates:
        if job.state != pb.JOB_STATE_SUCCEEDED:
            return {self._result: gr.update(visible=False), self._players: ""}
        frames = max(1, job.result.frames)
        return {
            self._result: gr.update(visible=True),
            self._players: job_cards.players(job, self._links),
            self._play_card: gr.update(visible=job_cards.can_be_played(job)),
            self._frame: gr.update(maximum=max(2, frames), value=_middle_frame(job), visible=frames > 1),
        }

    async def _report(self, job: pb.Job) -> pb.GetQualityReportResponse | None:
        if job.state != pb.JOB_STATE_SUCCEEDED:
            return None
        try:
            return await self._client.quality_report(job.job_id)
        except ServiceError:
            return None

    async def _compare(self, job_id: str, number: int) -> Any:
        return slider_pictures(job_id, int(number), self._links) if job_id else None

    async def _compare_middle(self, job_id: str, shown: str) -> Any:
        return await self._compare(job_id, int(shown.split()[-1])) if shown.startswith(_DONE) else None

    async def _cancel(self, job_id: str) -> Updates:
        return await self._act(self._client.cancel_job, job_id)

    async def _retry(self, job_id: str) -> Updates:
        return await self._act(self._client.retry_job, job_id)

    async def _act(self, act: Any, job_id: str) -> Updates:
        try:
            await act(checked_id(job_id))
            return {self.notice: ""} | await self._show(await soon(self._client.get_job(job_id)), "")
        except ServiceError as error:
            return {self.notice: home_cards.notice(error_words(error))}


def _middle_frame(job: pb.Job) -> int:
    """Counted from 1."""
    return int(max(1, job.result.frames) + 1) // 2
