"""Signing in and out: a page that takes a token, and a cookie that keeps it out of every script's reach."""

from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import HTMLResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route

from services.common.client import GatewayClient
from services.common.errors import InvalidInput, ServiceError, Unauthenticated
from services.common.http.status import http_status, retry_header
from services.common.login import read_token
from services.ui.entrance import COOKIE
from services.ui.links import Links, checked_id
from services.ui.markup import EMPTY, Html, tag
from services.ui.seal import Seal, SignedIn
from services.ui.settings import UiSettings
from services.ui.soon import soon
from services.ui.visitor import Visitor, current_visitor, set_visitor
from services.ui.words import error_words

_MAX_FORM_BYTES = 32 << 10
_HEADERS = {"Cache-Control": "no-store"}


class LoginRoutes:
    """GET and POST /login, POST /logout."""

    def __init__(self, client: GatewayClient, settings: UiSettings, seal: Seal) -> None:
        self._client = client
        self._links = Links(root_path=settings.root_path)
        self._seal = seal
        self._session_s = settings.session_s
        self._by_proxy = bool(settings.user_header)

    def routes(self) -> list[Route]:
        """To be added to an application before Gradio, which has routes of these names, too."""
        show, enter, leave = (self._show, self._enter, self._leave) if not self._by_proxy else (_nothing, _nothing, _nothing)
        return [
            Route("/login", show, methods=["GET"]),
            Route("/login", enter, methods=["POST"]),
            Route("/logout", leave, methods=["POST"]),
            Route("/logout", _nothing, methods=["GET"]),
        ]

    async def _show(self, request: Request) -> Response:
        return self._page(_job_of(request), "")

    async def _enter(self, request: Request) -> Response:
        job_id = _job_of(request)
        try:
            token = await _token_of(request)
            set_visitor(Visitor(current_visitor().credentials._replace(token=token)))
            caller = await soon(self._client.caller())
        except ServiceError as error:
            return self._page(job_id, error_words(error), error)
        answer = RedirectResponse(self._links.job(job_id) if job_id else self._links.home(), status_code=303, headers=_HEADERS)
        answer.set_cookie(
            COOKIE, self._seal.close(SignedIn(token, caller.subject)), max_age=int(self._session_s), path=self._links.home(),
            httponly=True, samesite="lax", secure=_is_secure(request),
        )  # fmt: skip
        return answer

    async def _leave(self, request: Request) -> Response:
        answer = RedirectResponse(self._links.login(""), status_code=303, headers=_HEADERS)
        answer.delete_cookie(COOKIE, path=self._links.home(), httponly=True, samesite="lax", secure=_is_secure(request))
        return answer

    def _page(self, job_id: str, trouble: str, error: ServiceError | None = None) -> Response:
        status = http_status(type(error)) if error else 200
        headers = {**_HEADERS, **(retry_header(error) if error else {})}
        return HTMLResponse("<!doctype html>" + login_page(self._links, job_id, trouble), status_code=status, headers=headers)


def login_page(links: Links, job_id: str, trouble: str) -> Html:
    """The page that asks for a token; ``job_id`` is where to go afterwards."""
    form = tag(
        "form",
        tag("label", "Your token", tag("input", type="password", name_="token", autocomplete="current-password", required=True,
                                       autofocus=True, spellcheck="false", maxlength=16384)),
        tag("div", trouble, role="alert", class_="trouble") if trouble else EMPTY,
        tag("button", "Sign in", type="submit"),
        tag("p", "Whoever runs this service gave it to you. It stays in this browser, out of reach of every script."),
        method="post",
        action=links.login(f"job={job_id}" if job_id else ""),
    )  # fmt: skip
    head = tag(
        "head",
        tag("meta", charset="utf-8"),
        tag("title", "Sign in – SeedVR2"),
        tag("meta", name_="viewport", content="width=device-width, initial-scale=1"),
        tag("meta", name_="robots", content="noindex"),
        tag("link", rel="stylesheet", href=f"{links.root_path}/ui/login.css"),
    )
    brand = tag("h1", tag("img", src=f"{links.root_path}/ui/logo.svg", alt="", width=40, height=40), "SeedVR2")
    return tag("html", head, tag("body", tag("main", brand, form, id="login")), lang="en")


def _job_of(request: Request) -> str:
    """Where the visitor wanted to go; empty: home. Nothing but an id comes through, so that no link leads elsewhere."""
    job_id = request.query_params.get("job", "")
    try:
        return checked_id(job_id) if job_id else ""
    except InvalidInput:
        return ""


async def _nothing(_: Request) -> Response:
    return PlainTextResponse("There is nothing here.", status_code=404)


async def _token_of(request: Request) -> str:
    body = bytearray()
    async for data in request.stream():
        body += data
        if len(body) > _MAX_FORM_BYTES:
            raise Unauthenticated("That is longer than any token.")
    fields = parse_qs(body.decode("ascii", errors="replace"))
    try:
        return read_token(fields.get("token", [""])[0].encode())
    except ValueError as error:
        raise Unauthenticated("That is no token; paste it as you got it.") from error


def _is_secure(request: Request) -> bool:
    """Whether the browser came by https. Who lies about that harms nobody else."""
    return request.url.scheme == "https" or request.headers.get("x-forwarded-proto", "").split(",")[0].strip() == "https"
