"""Two people in real browsers before one page's server: each has what is theirs, and nothing of the other's."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.gateway.identity.caller import Role
from tests.clips import make
from tests.e2e.page_fixtures import Browsed, browse, chromium_path
from tests.integration.gateway_calls import request, until
from tests.integration.identities import Identity, identity, token_file
from tests.integration.processes import Process, echo_worker, gateway, running

pytestmark = pytest.mark.e2e
ALICE, BOB, PAGE = identity("alice@example.com"), identity("bob@example.com"), identity("page", Role.DELEGATE)
JOB, FILE = "job-of-alice", "holiday-of-alice.mp4"


@contextlib.asynccontextmanager
async def served(directory: Path, **settings: Any) -> AsyncIterator[tuple[Process, Process]]:
    """A gateway that wants tokens, where Alice has a job that is done, and the page's server before it."""
    worker = echo_worker(directory / "worker")
    async with running(worker):
        back = gateway(directory / "gateway", worker)
        async with running(back), ALICE.client(back.address) as client:
            await done_job(client, directory / FILE)
            page = Process("services.ui", "SEEDVR2_UI", directory / "ui", gateway_address=back.address, **settings)
            async with running(page):
                yield back, page


async def done_job(client: GatewayClient, clip: Path) -> None:
    """Restore a clip."""
    upload = await client.upload_file(make.video(clip, frames=16), upload_id="upload-of-alice")
    await client.create_job(request(upload), job_id=JOB)
    assert (await until(client, JOB, lambda job: False)).state == pb.JOB_STATE_SUCCEEDED


async def sign_in(browsed: Browsed, who: Identity, path: str = "/") -> None:
    """Go to an address, be led to the sign-in page, and enter."""
    await browsed.page.goto(browsed.address + path)
    await browsed.page.wait_for_selector("#login")
    await browsed.page.fill("input[name=token]", who.token)
    await browsed.page.click("button[type=submit]")
    await browsed.page.wait_for_selector("#home:visible, #job:visible")


@pytest.fixture(autouse=True)
def _tokens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEEDVR2_IDENTITY_TOKEN_FILE", str(token_file(tmp_path / "tokens", ALICE, BOB, PAGE)))


@pytest.mark.timeout(240)
async def test_two_people_sign_in_and_neither_sees_what_is_the_others(tmp_path: Path) -> None:
    chromium_path()
    async with served(tmp_path) as (back, page):
        address = f"http://{page.address}"
        async with browse(address) as alice, browse(address) as bob:
            await sign_in(alice, ALICE, f"/?job={JOB}")
            await alice.wait_text("#job", FILE)
            await alice.wait_text("#top", ALICE.subject)
            await a_wrong_token_is_told(bob)
            await sign_in(bob, BOB)
            await bob.wait_text("#jobs", "appear here")
            await bob.open(f"/?job={JOB}")
            await bob.wait_text("#notice", "There is no job")
            assert FILE not in await bob.page.content()
            await files_are_the_owners(alice, bob)
            await alice.open("/")
            await alice.wait_text("#jobs", FILE)
            await bob.open("/")
            await bob.wait_text("#jobs", "appear here")
            await alice.screenshot("signed-in")
            assert ALICE.token not in await alice.page.evaluate("document.cookie + JSON.stringify(localStorage)")
            await signing_out_shuts_out(alice)
        for log in (page.log, back.log):
            assert not any(who.token[4:] in log for who in (ALICE, BOB, PAGE))


async def a_wrong_token_is_told(browsed: Browsed) -> None:
    await browsed.page.goto(browsed.address)
    await browsed.page.fill("input[name=token]", "sv2_wrong")
    await browsed.page.click("button[type=submit]")
    await browsed.wait_text("[role=alert]", "not known here")
    await browsed.screenshot("sign-in")


async def files_are_the_owners(alice: Browsed, bob: Browsed) -> None:
    paths = [f"/files/jobs/{JOB}/{name}" for name in ("result", "source", "hls/index.m3u8", "hls/0.mp4", "frames/result/0.png")]
    for path in [*paths, "/files/uploads/upload-of-alice"]:
        assert (await alice.page.request.get(alice.address + path)).ok, path
        assert (await bob.page.request.get(bob.address + path)).status == 404, path
    await bob.page.request.delete(bob.address + "/files/uploads/upload-of-alice")
    assert (await alice.page.request.get(alice.address + "/files/uploads/upload-of-alice")).ok


async def signing_out_shuts_out(browsed: Browsed) -> None:
    await browsed.page.click(".sv-who button")
    await browsed.page.wait_for_selector("#login")
    assert (await browsed.page.request.get(f"{browsed.address}/files/jobs/{JOB}/result")).status == 401
    await browsed.page.goto(f"{browsed.address}/?job={JOB}")
    await browsed.page.wait_for_selector("#login")


async def test_behind_a_proxy_that_signs_people_in_each_has_what_is_theirs(tmp_path: Path) -> None:
    own = tmp_path / "page.token"
    own.write_text(PAGE.token)
    settings = {"user_header": "X-Forwarded-User", "trusted_proxies": "127.0.0.1", "token_file": own}
    async with served(tmp_path, **settings) as (_, page), httpx.AsyncClient(base_url=f"http://{page.address}") as client:
        path = f"/files/jobs/{JOB}/result"
        for name, status in ((ALICE.subject, 200), (BOB.subject, 404)):
            assert (await client.get(path, headers={"X-Forwarded-User": name})).status_code == status
        assert (await client.get(path)).status_code == 401
        assert (await client.get("/")).status_code == 401
        assert (await client.get("/readyz")).status_code == 200
