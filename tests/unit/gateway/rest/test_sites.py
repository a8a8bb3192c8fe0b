import httpx
import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse

from services.gateway.rest.sites import Sites


async def _status(origins: tuple[str, ...], headers: dict[str, str]) -> int:
    async def app(scope, receive, send):  # type: ignore[no-untyped-def]
        await PlainTextResponse(Request(scope).method)(scope, receive, send)

    transport = httpx.ASGITransport(Sites(app, origins))
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:50052") as client:
        return (await client.post("/v1/videos", headers=headers)).status_code


@pytest.mark.parametrize("headers", [{}, {"Origin": "http://127.0.0.1:50052"}, {"Origin": "https://site.example"}])
async def test_programs_this_servers_own_pages_and_allowed_ones_call(headers: dict[str, str]):
    assert await _status(("https://site.example",), headers) == 200


@pytest.mark.parametrize("origin", ["https://else.example", "null", "http://127.0.0.1:50053", "https://site.example.else", ""])
async def test_pages_of_other_sites_are_refused(origin: str):
    assert await _status(("https://site.example",), {"Origin": origin}) == 403


async def test_all_sites_can_be_allowed():
    assert await _status(("*",), {"Origin": "https://else.example"}) == 200
