"""The application: which route does what, for whom, and how errors are told."""

import asyncio
import contextlib
import itertools
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from services.common.addresses import Network
from services.common.errors import ServiceError
from services.common.http import hosts
from services.common.http.tracing import Traced
from services.common.metrics import GatewayMetrics
from services.common.rpc.status import code_of
from services.common.tracing import REQUEST_ID
from services.gateway.identity.door import Door
from services.gateway.rest.answers import NO_STORE, error_answer, plain_answer
from services.gateway.rest.backend import Backend
from services.gateway.rest.caller import keep_record, presented
from services.gateway.rest.encoder import encode_models
from services.gateway.rest.events import Events
from services.gateway.rest.openapi import document
from services.gateway.rest.sites import Sites
from services.gateway.rest.uploads import UploadRoutes
from services.gateway.rest.usage import usage_handler
from services.gateway.rest.videos import Videos

_OTHER_HOST = plain_answer(
    hosts.STATUS, "No such host is here; ask for localhost or an address, or name it in the gateway's SEEDVR2_GATEWAY_REST_HOSTS."
)
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A route."""

    path: str
    """As Starlette and OpenAPI write it."""

    method: str
    """GET answers HEAD, too."""

    operation: str
    """Its name in the OpenAPI document and in the metrics."""

    call: str
    """The RPC that does the same, whose name is in the audit log; empty: for anybody."""

    handler: Handler
    """What answers."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Access:
    """Who is let in."""

    door: Door
    """The one way in."""

    trusted_proxies: Sequence[Network] = ()
    """Whose x-forwarded-for is believed."""

    origins: Sequence[str] = ()
    """Of web pages that may call."""

    address: str = ""
    """Where the API listens, host:port."""

    hosts: Sequence[str] = ()
    """Names by which it is asked for there, besides its own."""


def build_app(backend: Backend, access: Access, ready: Callable[[], bool]) -> Starlette:
    """The application. ``ready``: whether requests should come here."""
    every = sorted(endpoints(backend, ready), key=lambda endpoint: endpoint.path)
    grouped = itertools.groupby(every, key=lambda endpoint: endpoint.path)
    routes = [_route(path, list(found), backend.metrics, access) for path, found in grouped]
    cors = Middleware(
        CORSMiddleware, allow_origins=list(access.origins), allow_methods=["*"], allow_headers=["*"],
        expose_headers=["Upload-Offset", "Upload-Length", "Upload-Complete", "Location", "Retry-After", REQUEST_ID],
    )  # fmt: skip
    known = Middleware(hosts.KnownHosts, address=access.address, names=access.hosts, refusal=_OTHER_HOST)
    return Starlette(
        routes=routes,
        middleware=[Middleware(Traced), known, *([cors] if access.origins else []), Middleware(Sites, origins=access.origins)],
        exception_handlers={HTTPException: _http_error, 500: _lost_error},
    )


def endpoints(backend: Backend, ready: Callable[[], bool]) -> list[Endpoint]:
    """All routes."""
    videos, uploads, events = Videos(backend), UploadRoutes(backend), Events(backend)
    service = _Service(backend, ready)
    video, upload = "/v1/videos/{video_id}", "/v1/uploads/{upload_id}"
    return [
        Endpoint("/v1/videos", "POST", "createVideo", "CreateJob", videos.create),
        Endpoint("/v1/videos", "GET", "listVideos", "ListJobs", videos.listed),
        Endpoint(video, "GET", "getVideo", "GetJob", videos.get),
        Endpoint(video, "DELETE", "deleteVideo", "DeleteJob", videos.delete),
        Endpoint(f"{video}/content", "GET", "getVideoContent", "DownloadResult", videos.content),
        Endpoint(f"{video}/events", "GET", "watchVideo", "WatchJob", events.watch),
        Endpoint(f"{video}/cancel", "POST", "cancelVideo", "CancelJob", videos.cancel),
        Endpoint(f"{video}/retry", "POST", "retryVideo", "RetryJob", videos.retry),
        Endpoint("/v1/uploads", "POST", "createUpload", "CreateUpload", uploads.create),
        Endpoint(upload, "GET", "getUpload", "GetUpload", uploads.get),
        Endpoint(upload, "PATCH", "writeUpload", "WriteUpload", uploads.write),
        Endpoint(upload, "DELETE", "deleteUpload", "DeleteUpload", uploads.delete),
        Endpoint("/v1/usage", "GET", "getUsage", "GetUsage", usage_handler(backend)),
        Endpoint("/v1/models", "GET", "listModels", "ListModels", service.models),
        Endpoint("/v1/models/{model}", "GET", "getModel", "ListModels", service.model),
        Endpoint("/healthz", "GET", "live", "", service.live),
        Endpoint("/readyz", "GET", "ready", "", service.ready),
        Endpoint("/openapi.json", "GET", "describe", "", service.describe),
    ]


class _Service:
    """Handlers that are about the service itself."""

    def __init__(self, backend: Backend, ready: Callable[[], bool]) -> None:
        self._backend = backend
        self._ready = ready

    async def models(self, request: Request) -> Response:
        """GET /v1/models"""
        return JSONResponse({"object": "list", "data": self._models()}, headers=NO_STORE)

    async def model(self, request: Request) -> Response:
        """GET /v1/models/{model}"""
        found = [model for model in self._models() if model["id"] == request.path_params["model"]]
        if not found:
            return plain_answer(404, f"There is no model {request.path_params['model']!r}; GET /v1/models lists them.")
        return JSONResponse(found[0], headers=NO_STORE)

    async def live(self, request: Request) -> Response:
        """GET /healthz"""
        return PlainTextResponse("ok\n", headers=NO_STORE)

    async def ready(self, request: Request) -> Response:
        """GET /readyz"""
        ready = self._ready()
        return PlainTextResponse("ok\n" if ready else "not ready\n", status_code=200 if ready else 503, headers=NO_STORE)

    async def describe(self, request: Request) -> Response:
        """GET /openapi.json"""
        return JSONResponse(document(self._backend.version))

    def _models(self) -> list[dict[str, object]]:
        catalogue = self._backend.catalogue
        return encode_models(catalogue.models(), catalogue.installed(), catalogue.default_model())


def _route(path: str, found: list[Endpoint], metrics: GatewayMetrics, access: Access) -> Route:
    by_method = {endpoint.method: endpoint for endpoint in found}

    async def answer(request: Request) -> Response:
        endpoint = by_method["GET" if request.method == "HEAD" else request.method]
        try:
            with _counted(metrics, endpoint.operation):
                return await _answered(endpoint, request, access)
        except Exception as error:
            return error_answer(error)

    return Route(path, answer, methods=list(by_method))


async def _answered(endpoint: Endpoint, request: Request, access: Access) -> Response:
    if not endpoint.call:
        return await endpoint.handler(request)
    async with access.door.call(endpoint.call, presented(request, access.trusted_proxies)) as record:
        keep_record(record, request)
        return await endpoint.handler(request)


@contextlib.contextmanager
def _counted(metrics: GatewayMetrics, operation: str) -> Iterator[None]:
    code = "INTERNAL"
    try:
        yield
        code = "OK"
    except ServiceError as error:
        code = code_of(type(error)).name
        raise
    except (asyncio.CancelledError, ClientDisconnect):
        code = "CANCELLED"
        raise
    finally:
        metrics.requests.labels(operation, code).inc()


async def _http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    words = {404: "There is nothing here; /openapi.json says what there is.", 405: "This can't be done with it."}
    headers = dict(error.headers or {}) if isinstance(error, HTTPException) else {}
    return plain_answer(status, words.get(status, "This request can't be answered."), headers)


async def _lost_error(request: Request, error: Exception) -> Response:
    return error_answer(error)
