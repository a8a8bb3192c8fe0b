"""What is one owner's, nobody else reaches over HTTP: every route of the document."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from services.gateway.identity.caller import Role
from services.gateway.rest.openapi import document
from tests.clips import make
from tests.integration.identities import Identity, identity, token_file
from tests.integration.processes import echo_worker, gateway, running

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

ALICE, BOB, PAGE = identity("alice"), identity("bob"), identity("page", Role.DELEGATE)
PATHS = document("1.0")["paths"]
ROUTES = [
    (method.upper(), path) for path, methods in PATHS.items() for method in methods if methods[method].get("security") != []
]
OF_ONE = [route for route in ROUTES if "{video_id}" in route[1] or "{upload_id}" in route[1]]


def shown(who: Identity, **headers: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {who.token}", **headers}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("isolation")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(directory: Path) -> AsyncIterator[httpx.AsyncClient]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEDVR2_IDENTITY_TOKEN_FILE", str(token_file(directory / "tokens", ALICE, BOB, PAGE)))
        patch.setenv("SEEDVR2_IDENTITY_AUDIT_FILE", str(directory / "audit.jsonl"))
        patch.setenv("SEEDVR2_IDENTITY_FAILED_LOGINS", "1000")
        worker = echo_worker(directory / "worker")
        async with running(worker):
            process = gateway(directory / "gateway", worker, rest_address="127.0.0.1:0")
            async with (
                running(process),
                httpx.AsyncClient(base_url=f"http://{process.ready['rest_address']}", timeout=60) as client,
            ):
                yield client


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def video(http: httpx.AsyncClient, directory: Path) -> dict[str, Any]:
    """A video of Alice's, complete."""
    clip = make.video(directory / "clip.mp4", frames=8)
    answer = await http.post("/v1/videos", files={"file": ("clip.mp4", clip.read_bytes())}, headers=shown(ALICE))
    await http.get(f"/v1/videos/{answer.json()['id']}/events", headers=shown(ALICE))
    found = (await http.get(f"/v1/videos/{answer.json()['id']}", headers=shown(ALICE))).json()
    assert found["status"] == "completed"
    return dict(found)


def place(path: str, video: dict[str, Any]) -> str:
    return path.format(video_id=video["id"], upload_id=video["request"]["upload_id"], model="echo")


@pytest.mark.parametrize("route", ROUTES, ids=" ".join)
async def test_nobody_gets_in_without_a_token_or_with_a_wrong_one(http: httpx.AsyncClient, video: dict[str, Any], route: Any):
    for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {ALICE.token}"}):
        answer = await http.request(route[0], place(route[1], video), headers={**headers, "Upload-Offset": "0"})
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")


@pytest.mark.parametrize("route", OF_ONE, ids=" ".join)
async def test_what_is_anothers_is_not_there(http: httpx.AsyncClient, video: dict[str, Any], route: Any):
    answer = await http.request(route[0], place(route[1], video), headers=shown(BOB, **{"Upload-Offset": "0"}))
    assert answer.status_code == 404
    assert (await http.get(f"/v1/videos/{video['id']}", headers=shown(ALICE))).json() == video


async def test_what_is_anothers_is_not_listed_and_no_source_either(http: httpx.AsyncClient, video: dict[str, Any]):
    assert (await http.get("/v1/videos", headers=shown(BOB))).json()["data"] == []
    assert (await http.get("/v1/videos", params={"after": video["id"]}, headers=shown(BOB))).status_code == 404
    body = {"upload_id": video["request"]["upload_id"]}
    assert (await http.post("/v1/videos", json=body, headers=shown(BOB))).status_code == 404


async def test_a_delegate_acts_for_whom_it_names_only(http: httpx.AsyncClient, video: dict[str, Any]):
    assert (await http.get("/v1/videos", headers=shown(PAGE))).status_code == 403
    for_alice = shown(PAGE, **{"X-SeedVR2-Subject": "alice"})
    assert [v["id"] for v in (await http.get("/v1/videos", headers=for_alice)).json()["data"]] == [video["id"]]
    assert (await http.get("/v1/videos", headers=shown(BOB, **{"X-SeedVR2-Subject": "alice"}))).status_code == 403


async def test_what_is_done_is_written_down(http: httpx.AsyncClient, video: dict[str, Any], directory: Path):
    upload_id = (await http.post("/v1/uploads", json={"filename": "a.mp4"}, headers=shown(BOB))).json()["id"]
    await http.delete(f"/v1/uploads/{upload_id}", headers=shown(BOB))
    lines = [json.loads(line) for line in (directory / "audit.jsonl").read_text().splitlines()]
    written = [tuple(line.get(name) for name in ("call", "subject", "target", "outcome")) for line in lines]
    assert written[-2:] == [(call, "bob", f"uploads/{upload_id}", "OK") for call in ("CreateUpload", "DeleteUpload")]
    assert ("CreateJob", "alice", f"jobs/{video['id']}", "OK") in written
    assert ALICE.token not in (directory / "audit.jsonl").read_text()


async def test_probes_and_the_document_are_for_everybody(http: httpx.AsyncClient):
    for path in ("/healthz", "/readyz", "/openapi.json"):
        assert (await http.get(path)).status_code == 200
