"""The page for a new job: upload, options, plan, recent jobs."""

import asyncio
import logging
from typing import Any

import gradio as gr

from services.common.client import GatewayClient
from services.common.errors import InvalidVideo, ServiceError, Unauthenticated
from services.common.metrics import UiMetrics
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.ui import home_cards
from services.ui.form import COLOURS, CONTAINERS, MAX_SEED, PREVIEW_S, SIZES, Choices, job_request, preview_request
from services.ui.links import Links, checked_id
from services.ui.markup import tag
from services.ui.settings import UiSettings
from services.ui.soon import soon
from services.ui.visitor import current_visitor
from services.ui.words import error_words, size_words

_log = logging.getLogger(__name__)
Updates = dict[Any, Any]
"""New values and properties by component; those that are not named stay as they are."""

_PLAN_HINT = "Choose a video or picture to see what restoring it will give."
_RECENT_JOBS = 12
_PIECES_PER_LIMIT = 4
# The widget itself is static/upload.js; it tells the page what became of the file.
_ON_UPLOAD_LOAD = """
element.addEventListener('upload-done', (e) => trigger('submit', { upload_id: e.detail }));
element.addEventListener('upload-removed', () => trigger('clear', {}));
"""


def fragment(value: str, **options: Any) -> gr.HTML:
    """Markup of ours, looked after by static/page.css alone."""
    return gr.HTML(value, apply_default_css=False, **options)


class Home:
    """Components and what they do. Built inside a gr.Blocks context."""

    def __init__(self, client: GatewayClient, settings: UiSettings, metrics: UiMetrics) -> None:
        self._client = client
        self._metrics = metrics
        self._settings = settings
        self._links = Links(root_path=settings.root_path)
        self.upload_id = gr.Textbox(visible=False, label="Upload")
        with gr.Column(visible=False, elem_id="home") as self.view, gr.Row(equal_height=False):
            with gr.Column(scale=7, min_width=320):
                self._build_upload()
                self._build_form()
            with gr.Column(scale=5, min_width=320):
                self._build_plan()
                self._build_jobs()
        self._timer = gr.Timer(5)
        self.form: list[Any] = [
            self.upload_id, self.model, self.size, self.scale, self.short_side, self.width, self.height,
            self.seed, self.colour, self.container, self.crf, self.input_noise, self.latent_noise, self.preview_start,
        ]  # fmt: skip

    def _build_upload(self) -> None:
        with gr.Column(elem_classes="sv-card"):
            self.uploader = gr.HTML(
                html_template=self._widget(), js_on_load=_ON_UPLOAD_LOAD, apply_default_css=False, elem_id="uploader"
            )
            self._file_notice = fragment("", elem_id="file-notice")

    def _build_form(self) -> None:
        with gr.Column(elem_classes="sv-card"):
            self.model = gr.Radio([], label="Model", elem_id="model")
            self.size = gr.Radio(list(SIZES.items()), value="scale", label="Size of the result", elem_id="size")
            self.scale = gr.Slider(0.5, 4, value=2, step=0.25, label="Scale", elem_id="scale")
            self.short_side = gr.Dropdown(
                [("720 (HD)", 720), ("1080 (Full HD)", 1080), ("1440 (QHD)", 1440), ("2160 (4K)", 2160)],
                value=1080, label="Shorter side in pixels", visible=False, elem_id="short-side",
            )  # fmt: skip
            with gr.Row(visible=False) as self.box:
                self.width = gr.Number(1920, label="Width in pixels", precision=0, min_width=120, elem_id="box-width")
                self.height = gr.Number(1080, label="Height in pixels", precision=0, min_width=120, elem_id="box-height")
            with gr.Accordion("More options", open=False, elem_id="more"):
                self.colour = gr.Dropdown(_colour_choices(()), value=_DEFAULT_COLOUR, label="Colours", elem_id="colour")
                self.container = gr.Dropdown(list(CONTAINERS.items()), value="", label="Form of the result", elem_id="container")
                with gr.Row():
                    self.seed = gr.Number(
                        666, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, min_width=120, elem_id="seed"
                    )
                    self.crf = gr.Slider(0, 51, value=14, step=1, label="Quality factor, smaller is better", elem_id="crf")
                with gr.Row():
                    self.input_noise = gr.Slider(
                        0, 1, value=0, step=0.05, label="Noise on the frames, invents more detail", elem_id="input-noise"
                    )
                    self.latent_noise = gr.Slider(
                        0, 1, value=0, step=0.05, label="Freedom, keeps less of the source", elem_id="latent-noise"
                    )
                self.preview_start = gr.Number(0, label="A preview begins at second", minimum=0, elem_id="preview-start")

    def _build_plan(self) -> None:
        with gr.Column(elem_classes="sv-card"):
            fragment(tag("h2", "Plan"))
            self.plan = fragment(home_cards.plan_hint(_PLAN_HINT), elem_id="plan")
            self.plan_notice = fragment("", elem_id="plan-notice")
            self.notice = fragment("", elem_id="notice")
            with gr.Row(elem_classes="sv-buttons"):
                self.start = gr.Button("Restore", variant="primary", interactive=False, elem_id="start")
                self.preview = gr.Button(f"Preview {PREVIEW_S:g} seconds first", interactive=False, elem_id="preview")

    def _build_jobs(self) -> None:
        with gr.Column(elem_classes="sv-card"):
            fragment(tag("h2", "Recent jobs"))
            self.jobs = fragment("", elem_id="jobs")

    def connect(self, bar: gr.HTML) -> None:
        """Wire the events that stay on this page; ``bar`` is the top bar."""
        options: dict[str, Any] = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}
        planned = [self.plan, self._file_notice, self.plan_notice, self.start, self.preview]
        self.uploader.submit(self._uploaded, outputs=self.upload_id, **options)
        self.uploader.clear(lambda: "", outputs=self.upload_id, **options)
        self.size.change(_show_size_fields, self.size, [self.scale, self.short_side, self.box], **options)
        changes = [field.change for field in self.form if field is not self.preview_start]
        gr.on(changes, self._plan, self.form, planned, trigger_mode="always_last", **options)
        self.model.change(self._offer_colours, [self.model, self.colour], self.colour, **options)
        self._timer.tick(self.refresh, outputs=[self.jobs, bar], **options)

    async def open(self, bar: gr.HTML) -> Updates:
        """Show this page."""
        updates: Updates = {self.view: gr.update(visible=True)}
        updates |= await self._offer_models()
        jobs, top = await self.refresh()
        updates |= {self.jobs: jobs, bar: top}
        return updates

    def close(self) -> Updates:
        """Hide this page."""
        return {self.view: gr.update(visible=False)}

    async def refresh(self) -> tuple[Any, str]:
        """Recent jobs and the top bar as they are now; jobs stay as they were while the service doesn't answer."""
        try:
            jobs, status = await soon(
                asyncio.gather(self._client.list_jobs(page_size=_RECENT_JOBS), self._client.cluster_status())
            )
        except Unauthenticated:
            return gr.skip(), home_cards.top_bar(self._links, None, current_visitor(), signed_out=True)
        except ServiceError as error:
            _log.warning("the recent jobs can't be listed: %s", error)
            return gr.skip(), home_cards.top_bar(self._links, None, current_visitor())
        bar = home_cards.top_bar(self._links, status, current_visitor())
        return home_cards.job_list(list(jobs.jobs), self._links), bar

    async def create(self, *form: Any) -> tuple[str, str]:
        """Create the job that the form describes; its id, or a notice that says why not."""
        return await self._create(lambda: job_request(_choices(*form)))

    async def create_preview(self, *form: Any) -> tuple[str, str]:
        """The same for a preview."""
        choices = _choices(*form)
        return await self._create(lambda: preview_request(job_request(choices), choices.preview_start_s))

    async def _create(self, build: Any) -> tuple[str, str]:
        try:
            job = await self._client.create_job(build())
        except ServiceError as error:
            return "", home_cards.notice(error_words(error))
        self._metrics.jobs.inc()
        return job.job_id, ""

    async def _uploaded(self, event: gr.EventData) -> str:
        return checked_id(str(event.upload_id))

    async def _plan(self, *form: Any) -> Updates:
        choices = _choices(*form)
        if not choices.upload_id:
            return self._planned(home_cards.plan_hint(_PLAN_HINT), can_start=False)
        try:
            plan = await self._client.plan_job(job_request(choices))
        except InvalidVideo as error:
            return self._planned(home_cards.plan_hint(_PLAN_HINT), can_start=False, about_file=error_words(error))
        except ServiceError as error:
            # An option that can't be used has to change first; anything else may pass by itself.
            hint = home_cards.plan_hint("There is no plan yet.")
            return self._planned(hint, can_start=error.retryable, about_options=error_words(error))
        return self._planned(home_cards.plan_card(plan), can_start=True, can_preview=plan.frames > 1)

    def _planned(
        self, plan: str, *, can_start: bool, can_preview: bool = True, about_file: str = "", about_options: str = ""
    ) -> Updates:
        return {
            self.plan: plan,
            self._file_notice: home_cards.notice(about_file),
            self.plan_notice: home_cards.notice(about_options),
            self.start: gr.update(interactive=can_start),
            self.preview: gr.update(interactive=can_start and can_preview),
        }

    async def _offer_models(self) -> Updates:
        try:
            answer = await soon(self._client.models())
        except ServiceError as error:
            return {self.notice: home_cards.notice(error_words(error))}
        choices = [(home_cards.model_label(model), model.name) for model in answer.models if model.pools]
        others = home_cards.other_models([model for model in answer.models if not model.pools])
        return {self.model: gr.update(choices=choices, value=answer.default_model or None, info=others)}

    async def _offer_colours(self, name: str | None, chosen: int | None) -> Any:
        try:
            models = (await soon(self._client.models())).models
        except ServiceError:
            return gr.skip()
        offered = next((tuple(model.colours) for model in models if model.name == name), ())
        value = chosen if not offered or chosen in offered else offered[0]
        return gr.update(choices=_colour_choices(offered), value=value)

    def _widget(self) -> str:
        limit = self._settings.max_upload_bytes
        return tag(
            "video-upload",
            base=f"{self._settings.root_path}/files/uploads/",
            limit=limit,
            limit_words=size_words(limit),
            piece=self._settings.max_piece_bytes // _PIECES_PER_LIMIT,
        )


_DEFAULT_COLOUR = int(pb.COLOUR_MODE_WAVELET)


def _colour_choices(offered: tuple[int, ...]) -> list[tuple[str, int]]:
    return [(words, int(mode)) for mode, words in COLOURS.items() if not offered or mode in offered]


def _show_size_fields(size: str) -> tuple[Any, Any, Any]:
    return tuple(gr.update(visible=size == name) for name in ("scale", "short_side", "box"))  # type: ignore[return-value]


def _choices(*form: Any) -> Choices:
    (
        upload_id,
        model,
        size,
        scale,
        short_side,
        width,
        height,
        seed,
        colour,
        container,
        crf,
        input_noise,
        latent_noise,
        preview_start,
    ) = form
    return Choices(
        upload_id=upload_id or "",
        model=model,
        size=size,
        scale=scale,
        short_side=short_side,
        width=width,
        height=height,
        seed=seed,
        colour=colour,
        container=container,
        crf=crf,
        input_noise=input_noise,
        latent_noise=latent_noise,
        preview_start_s=preview_start,
    )
