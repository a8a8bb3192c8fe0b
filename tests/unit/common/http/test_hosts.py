import httpx
import pytest
from starlette.responses import PlainTextResponse

from services.common.http.hosts import STATUS, KnownHosts

_APP = PlainTextResponse("its answer")
_REFUSAL = PlainTextResponse("not here", status_code=STATUS)


async def _status(host: str, address: str = "127.0.0.1:7860", names: tuple[str, ...] = ("video.example",)) -> int:
    app = KnownHosts(_APP, address=address, names=names, refusal=_REFUSAL)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x") as client:
        return (await client.get("/", headers={"Host": host})).status_code


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1:7860", "[::1]:7860", "localhost:7860", "LOCALHOST.", "page.localhost", "192.0.2.7:1", "Video.Example:80"],
)
async def test_a_server_on_loopback_is_asked_for_by_address_by_localhost_and_by_the_names_it_is_given(host: str):
    assert await _status(host) == 200


@pytest.mark.parametrize("host", ["site.example:7860", "localhost.site.example", "notlocalhost", "127.0.0.1.example", "", "[::1"])
async def test_names_that_somebody_made_lead_to_loopback_are_refused(host: str):
    assert await _status(host) == STATUS


@pytest.mark.parametrize("address", ["localhost:7860", "[::1]:7860", "127.0.0.2:0"])
async def test_every_address_of_loopback_is_guarded(address: str):
    assert await _status("site.example", address) == STATUS


@pytest.mark.parametrize("address", ["0.0.0.0:7860", "[::]:7860", "192.0.2.7:7860", ":7860", "page.example:7860"])
async def test_what_other_machines_reach_is_asked_for_by_any_name(address: str):
    assert await _status("site.example", address) == 200


async def test_any_name_can_be_let_in():
    assert await _status("site.example", names=("*",)) == 200
