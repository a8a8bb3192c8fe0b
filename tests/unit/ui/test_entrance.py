from pathlib import Path
from typing import Any

import pytest

from services.gateway.identity.caller import Role
from tests.integration.identities import identity
from tests.unit.ui.entering import entering

ALICE, PAGE = identity("alice"), identity("page", Role.DELEGATE)


def _proxied(directory: Path, **changed: Any) -> dict[str, Any]:
    token = directory / "page.token"
    token.write_text(PAGE.token)
    return {"user_header": "x-forwarded-user", "trusted_proxies": ("127.0.0.1",), "token_file": str(token), **changed}


async def test_a_proxy_that_is_trusted_names_who_is_there(tmp_path: Path):
    async with entering(tmp_path, PAGE, **_proxied(tmp_path)) as client:
        headers = {"x-forwarded-user": "alice@example.com"}
        assert (await client.get("/files/uploads/none", headers=headers)).status_code == 404
        assert (await client.get("/login", headers=headers)).status_code == 404


@pytest.mark.parametrize("names", [[], ["two words"], ["alice", "bob"], [""]], ids=str)
async def test_nobody_gets_in_without_exactly_one_name(tmp_path: Path, names: list[str]):
    async with entering(tmp_path, PAGE, **_proxied(tmp_path)) as client:
        for path in ("/", "/files/uploads/none", "/config"):
            answer = await client.get(path, headers=[("x-forwarded-user", name) for name in names])
            assert answer.status_code == 401


async def test_a_name_from_anybody_but_the_proxy_counts_for_nothing(tmp_path: Path):
    async with entering(tmp_path, PAGE, **_proxied(tmp_path, trusted_proxies=("192.0.2.1",))) as client:
        headers = {"x-forwarded-user": "alice", "x-forwarded-for": "192.0.2.1"}
        assert (await client.get("/files/uploads/none", headers=headers)).status_code == 401


async def test_without_a_proxy_the_header_counts_for_nothing(tmp_path: Path):
    async with entering(tmp_path, PAGE, ALICE) as client:
        assert (await client.get("/files/uploads/none", headers={"x-forwarded-user": "alice"})).status_code == 401


async def test_probes_and_metrics_need_nobody(tmp_path: Path):
    for settings in ({}, _proxied(tmp_path)):
        async with entering(tmp_path, PAGE, **settings) as client:
            for path in ("/healthz", "/readyz", "/metrics", "/ui/login.css"):
                assert (await client.get(path)).status_code == 200


async def test_a_cookie_that_is_no_cookie_is_nobody(tmp_path: Path):
    async with entering(tmp_path, ALICE) as client:
        for value in ("seedvr2_session=nonsense", "=;;=", 'seedvr2_session="'):
            assert (await client.get("/files/uploads/none", headers={"cookie": value})).status_code == 401
