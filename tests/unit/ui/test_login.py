from http.cookies import Morsel, SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.ui.entrance import COOKIE
from services.ui.links import Links
from services.ui.login import login_page
from tests.integration.identities import identity
from tests.unit.ui.entering import entering
from tests.unit.ui.fake_gateway import FakeGateway, served
from tests.unit.ui.serving import served_host

ALICE, BOB = identity("alice"), identity("bob")


def _cookie(answer: httpx.Response) -> "Morsel[Any]":
    (header,) = answer.headers.get_list("set-cookie")
    return SimpleCookie(header)[COOKIE]


async def _sign_in(client: httpx.AsyncClient, token: str, path: str = "/login", **headers: str) -> httpx.Response:
    return await client.post(path, data={"token": token}, headers=headers)


async def test_whoever_has_no_token_is_led_to_where_they_sign_in_and_then_to_where_they_wanted(tmp_path: Path):
    async with entering(tmp_path, ALICE) as client:
        led = await client.get("/?job=my-job")
        assert (led.status_code, led.headers["location"]) == (303, "/login?job=my-job")
        shown = await client.get(led.headers["location"])
        assert shown.status_code == 200
        assert 'action="/login?job=my-job"' in shown.text
        entered = await _sign_in(client, f" {ALICE.token}\n", led.headers["location"])
        assert (entered.status_code, entered.headers["location"]) == (303, "/?job=my-job")
        assert (await client.get("/files/uploads/none")).status_code == 404


async def test_the_cookie_is_out_of_reach_of_scripts_and_other_sites_and_shows_no_token(tmp_path: Path):
    async with entering(tmp_path, ALICE, root_path="/seedvr2") as client:
        plain = _cookie(await _sign_in(client, ALICE.token, "/seedvr2/login"))
        secure = _cookie(await _sign_in(client, ALICE.token, "/seedvr2/login", **{"x-forwarded-proto": "https"}))
    assert (plain["httponly"], plain["samesite"], plain["path"], plain["secure"]) == (True, "lax", "/seedvr2/", "")
    assert secure["secure"] is True
    assert ALICE.token not in plain.value


async def test_a_wrong_token_stays_outside_and_is_told(tmp_path: Path):
    async with entering(tmp_path, ALICE) as client:
        for token, words in ((BOB.token, "not known here"), ("", "That is no token"), ("x" * 40_000, "longer than any token")):
            refused = await _sign_in(client, token)
            assert refused.status_code == 401
            assert words in refused.text
            assert "set-cookie" not in refused.headers
            assert not token or token not in refused.text
        assert (await client.get("/files/uploads/none")).status_code == 401


async def test_too_many_wrong_tokens_from_one_browser_do_not_shut_another_out(tmp_path: Path):
    async with entering(tmp_path, ALICE, BOB, failures=2, trusted_proxies=("127.0.0.1",)) as client:
        for _ in range(2):
            assert (await _sign_in(client, "wrong", **{"x-forwarded-for": "203.0.113.1"})).status_code == 401
        limited = await _sign_in(client, ALICE.token, **{"x-forwarded-for": "203.0.113.1"})
        assert limited.status_code == 429
        assert int(limited.headers["retry-after"]) > 0
        assert (await _sign_in(client, ALICE.token, **{"x-forwarded-for": "203.0.113.2"})).status_code == 303


async def test_signing_out_takes_the_cookie_away(tmp_path: Path):
    async with entering(tmp_path, ALICE) as client:
        await _sign_in(client, ALICE.token)
        left = await client.post("/logout")
        assert left.headers["location"] == "/login"
        assert (await client.get("/files/uploads/none")).status_code == 401


async def test_a_token_that_counts_no_more_leads_to_the_sign_in_page(tmp_path: Path):
    async with entering(tmp_path, ALICE) as client:
        await _sign_in(client, ALICE.token)
        (tmp_path / "next").write_text("")
        (tmp_path / "next").replace(tmp_path / "tokens")
        assert (await client.get("/")).headers["location"] == "/login"


async def test_another_sites_page_cannot_sign_anybody_in_or_out(tmp_path: Path):
    async with entering(tmp_path, ALICE) as client:
        for path in ("/login", "/logout"):
            assert (await _sign_in(client, ALICE.token, path, **{"sec-fetch-site": "cross-site"})).status_code == 403


async def test_a_gateway_that_wants_no_token_leads_nobody_to_the_sign_in_page():
    async with served(FakeGateway()) as address, served_host(address) as host, httpx.AsyncClient(base_url=host) as client:
        assert (await client.get("/")).status_code == 404, "the host alone has no page"
        assert (await client.get("/files/uploads/none")).status_code == 404


@pytest.mark.parametrize("job", ['"><script>', "//elsewhere.example", "../x"])
async def test_no_link_makes_the_sign_in_page_lead_elsewhere(tmp_path: Path, job: str):
    async with entering(tmp_path, ALICE) as client:
        shown = await client.get("/login", params={"job": job})
        assert job not in shown.text
        entered = await client.post("/login", params={"job": job}, data={"token": ALICE.token})
        assert entered.headers["location"] == "/"


def test_the_sign_in_page_escapes_what_went_wrong():
    assert "<b>" not in login_page(Links(root_path=""), "", "<b>no</b>")
