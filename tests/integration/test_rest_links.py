"""Who downloads over HTTP is sent to the S3 server: only to what is theirs, and only for a while."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio

from services.gateway.store.s3.settings import S3Settings
from tests.clips import make
from tests.integration.identities import identity, token_file
from tests.integration.processes import Process, echo_worker, gateway, running
from tests.s3 import S3

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

ALICE, BOB = identity("alice"), identity("bob")
LINK_S = 60


def shown(who: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {who.token}"}


@contextlib.asynccontextmanager
async def service(directory: Path, s3: S3Settings | None) -> AsyncIterator[tuple[httpx.AsyncClient, Process]]:
    worker = echo_worker(directory / "worker")
    async with running(worker):
        process = gateway(directory / "gateway", worker, s3=s3, rest_address="127.0.0.1:0", rest_link_s=LINK_S)
        async with running(process), httpx.AsyncClient(base_url=f"http://{process.ready['rest_address']}", timeout=60) as http:
            yield http, process


async def restored(http: httpx.AsyncClient, clip: Path, headers: dict[str, str]) -> dict[str, Any]:
    """A video that is complete."""
    answer = await http.post("/v1/videos", files={"file": (clip.name, clip.read_bytes())}, headers=headers)
    await http.get(f"/v1/videos/{answer.json()['id']}/events", headers=headers)
    found = (await http.get(f"/v1/videos/{answer.json()['id']}", headers=headers)).json()
    assert found["status"] == "completed"
    return dict(found)


@pytest.fixture(scope="module", autouse=True)
def _tokens(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Gateways here let two in."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEEDVR2_IDENTITY_TOKEN_FILE", str(token_file(tmp_path_factory.mktemp("tokens") / "tokens", ALICE, BOB)))
        yield


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.video(tmp_path_factory.mktemp("clip") / "talk.mp4", frames=8)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def there(tmp_path_factory: pytest.TempPathFactory, s3: S3, clip: Path) -> AsyncIterator[Any]:
    """A gateway with its store in a bucket, and a video of Alice's."""
    directory = tmp_path_factory.mktemp("links")
    async with service(directory, s3.settings(directory / "s3")) as (http, process):
        yield http, process, await restored(http, clip, shown(ALICE))


async def test_an_owner_is_sent_to_the_store_and_gets_the_file_there(there: Any, s3: S3, clip: Path):
    http, process, video = there
    content = f"/v1/videos/{video['id']}/content"
    sent = await http.get(content, headers=shown(ALICE))
    link = httpx.URL(sent.headers["location"])
    assert (sent.status_code, sent.headers["cache-control"], sent.content) == (307, "no-store", b"")
    assert str(link).startswith(f"{s3.endpoint}/")
    assert link.params["X-Amz-Expires"] == str(LINK_S)
    async with httpx.AsyncClient() as anybody:
        got = await anybody.get(link)
        assert hashlib.sha256(got.content).hexdigest() == video["result"]["sha256"]
        assert got.headers["content-type"] == "video/mp4"
        assert got.headers["content-disposition"] == "attachment; filename*=UTF-8''talk_restored.mp4"
        assert (await anybody.get(link, headers={"Range": "bytes=4-9"})).content == got.content[4:10]
    source = await http.get(f"{content}?variant=source", headers=shown(ALICE), follow_redirects=True)
    assert source.content == clip.read_bytes()
    assert link.params["X-Amz-Signature"] not in process.log


async def test_nobody_gets_a_link_to_what_is_anothers(there: Any):
    http, _, video = there
    content = f"/v1/videos/{video['id']}/content"
    for headers, status in ((shown(BOB), 404), ({}, 401)):
        for variant in ("video", "source"):
            refused = await http.get(content, params={"variant": variant}, headers=headers)
            assert (refused.status_code, refused.headers.get("location")) == (status, None)


async def test_a_link_is_good_for_its_file_alone(there: Any):
    http, _, video = there
    link = httpx.URL((await http.get(f"/v1/videos/{video['id']}/content", headers=shown(ALICE))).headers["location"])
    other = link.copy_with(path=link.path.replace("/result.mp4", "/state.json"))
    longer = link.copy_set_param("X-Amz-Expires", "600000")
    async with httpx.AsyncClient() as anybody:
        for wrong in (other, longer):
            assert (await anybody.get(wrong)).status_code == 403
        assert (await anybody.delete(link)).status_code == 403


async def test_what_is_no_get_of_a_file_is_answered_here(there: Any):
    http, _, video = there
    content = f"/v1/videos/{video['id']}/content"
    head = await http.head(content, headers=shown(ALICE))
    assert (head.status_code, head.headers["content-length"]) == (200, str(video["result"]["size_bytes"]))
    assert (await http.get(f"{content}?variant=thumbnail", headers=shown(ALICE))).headers["content-type"] == "image/png"


async def test_where_the_store_has_no_links_the_bytes_come_from_here(clip: Path, tmp_path: Path):
    async with service(tmp_path, None) as (http, _):
        video = await restored(http, clip, shown(ALICE))
        got = await http.get(f"/v1/videos/{video['id']}/content", headers=shown(ALICE))
        assert (got.status_code, hashlib.sha256(got.content).hexdigest()) == (200, video["result"]["sha256"])
