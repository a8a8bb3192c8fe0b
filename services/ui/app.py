"""The web application: page, file routes, health and metrics in one FastAPI host."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import gradio as gr
from fastapi import FastAPI
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from services.common.client import GatewayClient
from services.common.errors import ServiceError, Unauthenticated
from services.common.http import hosts
from services.common.http.tracing import Traced
from services.common.login import read_token
from services.common.metrics import UiMetrics
from services.common.watched import Watched
from services.ui.answers import error_answer
from services.ui.entrance import Entrance
from services.ui.files import FileRoutes
from services.ui.login import LoginRoutes
from services.ui.page import build_page
from services.ui.seal import Seal
from services.ui.security import Guard
from services.ui.settings import UiSettings
from services.ui.soon import soon
from services.ui.theme import page_theme

_STATIC = Path(__file__).parent / "static"
_OTHER_HOST = PlainTextResponse(
    "No such host is here; ask for localhost or an address, or name it in the page's SEEDVR2_UI_HOSTS.", status_code=hosts.STATUS
)
_SCRIPTS = ("page.js", "upload.js", "player.js")


def build_app(client: GatewayClient, settings: UiSettings, registry: CollectorRegistry) -> FastAPI:
    """The application, ready to be served; ``client`` stays the caller's to close, and logs in with ``visitor_login``.

    Raises:
        SettingsError: a file that the settings name can't be used.
    """
    metrics = UiMetrics(registry)
    app = build_host(client, settings, registry, metrics)
    _mount_page(app, client, settings, metrics)
    return app


def build_host(client: GatewayClient, settings: UiSettings, registry: CollectorRegistry, metrics: UiMetrics) -> FastAPI:
    """Everything but the page: files, health, metrics, and what guards them all."""
    seal = Seal(settings.session_key_file, settings.session_s)
    app = FastAPI(title="SeedVR2", docs_url=None, redoc_url=None, openapi_url=None)
    # An empty list of origins: Gradio's own rule would let any site in where the host is not localhost.
    app.add_middleware(CORSMiddleware, allow_origins=[])
    app.add_middleware(Entrance, client=client, settings=settings, seal=seal, own_token=_own_token(settings))
    app.add_middleware(Guard, root_path=settings.root_path)
    app.add_middleware(hosts.KnownHosts, address=settings.address, names=settings.hosts, refusal=_OTHER_HOST)
    app.add_middleware(Traced)
    app.router.routes.extend(FileRoutes(client, settings, metrics).routes())
    app.router.routes.extend(LoginRoutes(client, settings, seal).routes())
    app.router.routes.extend(_service_routes(client, registry))
    return app


def _own_token(settings: UiSettings) -> Callable[[], str]:
    return Watched([Path(settings.token_file)], read_token).get if settings.token_file else str


def _mount_page(app: FastAPI, client: GatewayClient, settings: UiSettings, metrics: UiMetrics) -> None:
    gr.mount_gradio_app(
        app,
        build_page(client, settings, metrics),
        path="/",
        root_path=settings.root_path or None,
        footer_links=[],
        run_history=False,
        ssr_mode=False,
        mcp_server=False,
        enable_monitoring=False,
        pwa=False,
        show_error=False,
        max_file_size=1,
        favicon_path=str(_STATIC / "logo.svg"),
        theme=page_theme(),
        head=_head(settings.root_path),
    )


def _service_routes(client: GatewayClient, registry: CollectorRegistry) -> list[Route | Mount]:
    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(_: Request) -> Response:
        try:
            status = await soon(client.cluster_status())
        except Unauthenticated:
            # Whoever probes has no token, and the gateway says so: it is there.
            return JSONResponse({"gateway": "reachable"})
        except ServiceError as error:
            return error_answer(error)
        return JSONResponse({"gateway": status.version or "reachable"})

    async def metrics(_: Request) -> Response:
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    return [
        Route("/healthz", healthz),
        Route("/readyz", readyz),
        Route("/metrics", metrics),
        Mount("/ui", StaticFiles(directory=_STATIC)),
    ]


def _head(root_path: str) -> str:
    """What the page loads besides Gradio; a file's hash in its address keeps browsers from using an old one."""

    def address(name: str) -> str:
        digest = hashlib.sha256((_STATIC / name).read_bytes()).hexdigest()
        return f"{root_path}/ui/{name}?v={digest[:12]}"

    scripts = "".join(f'<script type="module" src="{address(name)}"></script>' for name in _SCRIPTS)
    return (
        f'<link rel="stylesheet" href="{address("page.css")}">{scripts}'
        '<meta name="color-scheme" content="light dark"><meta name="robots" content="noindex">'
    )
