import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from services.common import tracing
from services.common.http.tracing import Traced
from tests.unit.common.test_tracing import PARENT, Kept


async def answer(request: Request) -> Response:
    carried = dict(tracing.outgoing())
    text = f"{carried.get('x-request-id')} {carried.get('traceparent', '')[3:35]}"
    return PlainTextResponse(text, status_code=int(request.query_params.get("status", 200)))


def client() -> httpx.AsyncClient:
    app = Traced(Starlette(routes=[Route("/files/{id}", answer), Route("/healthz", answer)]))
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://page")


async def test_a_request_is_answered_in_its_trace_and_says_its_id():
    recorder = Kept()
    with tracing.start_recording(recorder):
        async with client() as page:
            got = await page.get("/files/7", headers={"x-request-id": "req-1", "traceparent": PARENT})
    assert got.text == "req-1 0af7651916cd43dd8448eb211c80319c"
    assert got.headers["x-request-id"] == "req-1"
    (span,) = recorder.spans
    assert (span.name, span.kind, span.parent_id) == ("GET /files", "server", "b7ad6b7169203331")
    assert span.attributes == {"path": "/files/7", "http.response.status_code": 200}


async def test_a_request_without_ids_gets_some():
    async with client() as page:
        got = await page.get("/files/7", headers={"x-request-id": "two words"})
    assert len(got.headers["x-request-id"]) == 16
    assert got.text.split()[0] == got.headers["x-request-id"]


@pytest.mark.parametrize(("status", "error"), [(404, ""), (503, "503")])
async def test_only_our_own_faults_are_errors(status: int, error: str):
    recorder = Kept()
    with tracing.start_recording(recorder):
        async with client() as page:
            await page.get(f"/files/7?status={status}")
    assert recorder.spans[0].error == error


async def test_probes_are_no_requests():
    async with client() as page:
        assert (await page.get("/healthz")).text == "None "
