"""The HTTP API over real sockets: HTTP client, gateway process, a small real worker process, a directory as store."""

import asyncio
import contextlib
import hashlib
import json
import re
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio

from tests.clips import make
from tests.integration.gateway_calls import greys, objects, stamps
from tests.integration.processes import Process, echo_worker, gateway, running

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    directory = tmp_path_factory.mktemp("service")
    worker = echo_worker(directory / "worker")
    async with running(worker):
        process = gateway(directory / "gateway", worker, rest_address="127.0.0.1:0", max_upload_bytes=4 << 20)
        async with running(process):
            yield process


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def http(service: Process) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(base_url=f"http://{service.ready['rest_address']}", timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.video(tmp_path_factory.mktemp("clip") / "talk.mp4", audio="aac")


async def created(http: httpx.AsyncClient, clip: Path, headers: dict[str, str] | None = None, **fields: str) -> dict[str, Any]:
    """A video that was just created by a form."""
    files = {"file": (clip.name, clip.read_bytes(), "video/mp4")}
    answer = await http.post("/v1/videos", files=files, data={"scale": "2", **fields}, headers=headers)
    assert answer.status_code == 200, answer.text
    video: dict[str, Any] = answer.json()
    return video


async def events(http: httpx.AsyncClient, video_id: str) -> list[tuple[str, str, dict[str, Any]]]:
    """Id, name and data of every event to the last."""
    text = (await http.get(f"/v1/videos/{video_id}/events")).text
    blocks = [dict(line.split(": ", 1) for line in block.splitlines() if ": " in line) for block in text.split("\n\n")]
    return [(b["id"], b["event"], json.loads(b["data"])) for b in blocks if "data" in b]


async def finished(http: httpx.AsyncClient, video_id: str) -> dict[str, Any]:
    """A video that is complete."""
    video = (await events(http, video_id))[-1][2]
    assert video["status"] == "completed", video
    return video


def refusal(answer: httpx.Response, status: int, code: str, param: str | None = None) -> str:
    """The sentence of a refusal, which has this status, code and field."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert (error["code"], error["param"]) == (code, param), error
    return str(error["message"])


def kept(service: Process) -> list[str]:
    return objects(service._directory)


# ---- one video ----


async def test_a_form_with_a_file_becomes_a_restored_video(http: httpx.AsyncClient, clip: Path, tmp_path: Path):
    video = await created(http, clip, seed="7", format="mkv", **{"labels[for]": "tests"})
    assert (video["object"], video["status"], video["filename"]) == ("video", "queued", "talk.mp4")
    assert video["request"]["labels"] == {"for": "tests"}
    done = await finished(http, video["id"])
    assert (done["progress"], done["size"], done["seconds"], done["state"]) == (100, "128x96", "0.96", "succeeded")
    answer = await http.get(f"/v1/videos/{video['id']}/content")
    result = tmp_path / "result.mkv"
    result.write_bytes(answer.content)
    assert hashlib.sha256(answer.content).hexdigest() == done["result"]["sha256"]
    assert 'filename="talk_restored.mkv"' in answer.headers["content-disposition"]
    assert [round(s, 2) for s in stamps(result)] == [round(s, 2) for s in stamps(clip)]
    assert greys(result) == pytest.approx(greys(clip), abs=3)


async def test_events_tell_the_way_to_the_end_and_end(http: httpx.AsyncClient, clip: Path):
    video = await created(http, clip)
    found = await events(http, video["id"])
    assert [name for _, name, _ in found][-1] == "ended"
    assert {name for _, name, _ in found[:-1]} <= {"progress"}
    progress = [data["progress"] for _, _, data in found]
    assert progress == sorted(progress)
    assert len({event_id for event_id, _, _ in found}) == len({json.dumps(data) for _, _, data in found})
    again = await http.get(f"/v1/videos/{video['id']}/events", headers={"Last-Event-ID": found[-1][0]})
    assert again.status_code == 204


async def test_a_part_of_a_file_can_be_had_and_a_download_goes_on(http: httpx.AsyncClient, clip: Path):
    path = f"/v1/videos/{(await finished(http, (await created(http, clip))['id']))['id']}/content"
    whole = await http.get(path)
    etag = whole.headers["etag"]
    part = await http.get(path, headers={"Range": "bytes=10-19", "If-Range": etag})
    assert (part.status_code, part.content) == (206, whole.content[10:20])
    assert part.headers["content-range"] == f"bytes 10-19/{len(whole.content)}"
    assert (await http.get(path, headers={"Range": "bytes=10-19", "If-Range": '"other"'})).content == whole.content
    assert (await http.get(path, headers={"If-None-Match": etag})).status_code == 304
    head = await http.head(path)
    assert (head.status_code, head.headers["content-length"], head.content) == (200, str(len(whole.content)), b"")
    behind = await http.get(path, headers={"Range": "bytes=99999999-"})
    refusal(behind, 416, "RangeOutOfBounds")
    assert behind.headers["content-range"] == f"bytes */{len(whole.content)}"
    assert (await http.get(path, params={"variant": "source"})).content == clip.read_bytes()
    assert (await http.get(path, params={"variant": "thumbnail", "max_side": "64"})).content.startswith(b"\x89PNG")


async def test_a_video_is_deleted_with_the_file_that_came_with_it(http: httpx.AsyncClient, service: Process, clip: Path):
    before = kept(service)
    video = await created(http, clip, crf="30")
    await finished(http, video["id"])
    assert len(kept(service)) > len(before)
    answer = await http.delete(f"/v1/videos/{video['id']}")
    assert answer.json() == {"id": video["id"], "object": "video.deleted", "deleted": True}
    assert kept(service) == before
    refusal(await http.get(f"/v1/videos/{video['id']}"), 404, "JobNotFound", "video_id")


async def test_a_video_is_cancelled_and_tried_again(clip: Path, tmp_path: Path):
    hold = tmp_path / "hold"
    hold.touch()
    worker = echo_worker(tmp_path / "worker", hold_file=hold)
    async with running(worker):
        process = gateway(tmp_path / "gateway", worker, rest_address="127.0.0.1:0")
        async with running(process), httpx.AsyncClient(base_url=f"http://{process.ready['rest_address']}", timeout=60) as http:
            video_id = (await created(http, clip))["id"]
            refusal(await http.delete(f"/v1/videos/{video_id}"), 409, "WrongState")
            refusal(await http.get(f"/v1/videos/{video_id}/content"), 409, "WrongState")
            assert (await http.post(f"/v1/videos/{video_id}/cancel")).json()["status"] == "cancelled"
            hold.unlink()
            assert (await http.post(f"/v1/videos/{video_id}/retry")).json()["status"] in ("queued", "in_progress")
            assert (await finished(http, video_id))["result"]["frames"] == 24


async def test_videos_are_listed_page_by_page(http: httpx.AsyncClient, clip: Path):
    made = [(await created(http, clip))["id"] for _ in range(3)]
    first = (await http.get("/v1/videos", params={"limit": 2})).json()
    assert [video["id"] for video in first["data"]] == [made[2], made[1]]
    assert (first["has_more"], first["last_id"]) == (True, made[1])
    following = (await http.get("/v1/videos", params={"limit": 1, "after": first["last_id"]})).json()
    assert following["first_id"] == made[0]
    oldest = (await http.get("/v1/videos", params={"order": "asc", "after": made[0], "limit": 1})).json()
    assert oldest["data"][0]["id"] == made[1]
    refusal(await http.get("/v1/videos", params={"after": "none-such"}), 404, "JobNotFound", "video_id")


async def test_the_documented_commands_work(http: httpx.AsyncClient, service: Process, clip: Path, tmp_path: Path):
    page = (Path(__file__).parents[2] / "docs/rest.md").read_text()
    script = "\n".join(re.findall(r"```sh\n(.*?)```", page, re.DOTALL)).replace("127.0.0.1:50052", service.ready["rest_address"])
    (tmp_path / "holiday.mp4").write_bytes(clip.read_bytes())
    process = await asyncio.create_subprocess_exec(
        "bash", "-euc", script, cwd=tmp_path, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said = (await process.communicate())[0].decode()
    assert process.returncode == 0, said
    assert '{"error"' not in said, said
    assert stamps(tmp_path / "restored.mp4") == stamps(clip)
    newest = (await http.get("/v1/videos", params={"limit": 1})).json()["data"][0]
    assert (await finished(http, newest["id"]))["result"]["frames"] == 13


# ---- once ----


async def test_the_same_key_and_file_give_the_same_video(http: httpx.AsyncClient, service: Process, clip: Path):
    key = {"Idempotency-Key": "order 66"}
    once = await created(http, clip, headers=key)
    await finished(http, once["id"])
    before = kept(service)
    assert (await created(http, clip, headers=key))["id"] == once["id"]
    assert kept(service) == before
    files = {"file": (clip.name, clip.read_bytes())}
    refusal(await http.post("/v1/videos", files=files, data={"scale": "3"}, headers=key), 409, "AlreadyExists", "video_id")
    other = await http.post("/v1/videos", files={"file": ("b.mp4", b"else")}, data={"scale": "2"}, headers=key)
    refusal(other, 409, "AlreadyExists", "idempotency-key")


async def test_two_requests_with_one_key_at_once_make_one_video(http: httpx.AsyncClient, service: Process, clip: Path):
    key = {"Idempotency-Key": "twins"}
    twins = await asyncio.gather(*(created(http, clip, headers=key) for _ in range(4)))
    assert len({video["id"] for video in twins}) == 1
    await finished(http, twins[0]["id"])
    await http.delete(f"/v1/videos/{twins[0]['id']}")
    assert not [name for name in kept(service) if twins[0]["request"]["upload_id"] in name]


# ---- uploads in pieces ----


async def test_an_upload_goes_on_where_it_was(http: httpx.AsyncClient, clip: Path):
    data = clip.read_bytes()
    begun = await http.post("/v1/uploads", json={"filename": "talk.mp4", "bytes": len(data), "id": "pieces"})
    assert (begun.status_code, begun.headers["location"]) == (201, "/v1/uploads/pieces")
    await http.patch("/v1/uploads/pieces", content=data[:1000], headers={"Upload-Offset": "0"})
    wrong = await http.patch("/v1/uploads/pieces", content=data, headers={"Upload-Offset": "7"})
    refusal(wrong, 409, "ChunkOutOfOrder", "offset")
    assert wrong.headers["upload-offset"] == "1000"
    assert (await http.head("/v1/uploads/pieces")).headers["upload-offset"] == "1000"
    last = await http.patch("/v1/uploads/pieces", content=data[1000:], headers={"Upload-Offset": "1000"})
    assert (last.json()["status"], last.json()["sha256"]) == ("completed", hashlib.sha256(data).hexdigest())
    video = await http.post("/v1/videos", json={"upload_id": "pieces", "short_side": 96, "preview": True})
    assert (await finished(http, video.json()["id"]))["size"] == "128x96"
    await http.delete(f"/v1/videos/{video.json()['id']}")
    assert (await http.delete("/v1/uploads/pieces")).status_code == 204
    refusal(await http.get("/v1/uploads/pieces"), 404, "UploadNotFound", "upload_id")


async def test_an_upload_of_unknown_size_ends_when_it_is_told(http: httpx.AsyncClient):
    upload_id = (await http.post("/v1/uploads", json={"filename": "a.mp4"})).json()["id"]
    part = await http.patch(f"/v1/uploads/{upload_id}", content=b"abc", headers={"Upload-Offset": "0"})
    assert (part.json()["status"], part.headers["upload-complete"]) == ("pending", "?0")
    headers = {"Upload-Offset": "3", "Upload-Complete": "?1"}
    assert (await http.patch(f"/v1/uploads/{upload_id}", content=b"", headers=headers)).json()["bytes"] == 3


# ---- what goes wrong ----


@pytest.mark.parametrize(
    ("fields", "code", "param", "words"),
    [
        ({"scale": "99"}, "InvalidOption", "scale", "give 0.1 to 16"),
        ({"scale": "two"}, "InvalidOption", "scale", "must be a number"),
        ({"scale": "2", "size": "10x10"}, "InvalidOption", "scale", "one of them"),
        ({"start": "0", "first_frame": "1"}, "InvalidOption", "start", "not in both"),
        ({"colour": "sepia"}, "InvalidOption", "colour", "sepia"),
        ({"scael": "2"}, "InvalidOption", "scael", "There is no field"),
        ({"upload_id": "a"}, "InvalidOption", "upload_id", "only the file"),
        ({"model": "sora-2"}, "InvalidOption", "model", "sora-2"),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_and_nothing_is_left(
    http: httpx.AsyncClient, service: Process, clip: Path, fields: dict[str, str], code: str, param: str, words: str
):
    before = kept(service)
    answer = await http.post("/v1/videos", files={"file": (clip.name, clip.read_bytes())}, data=fields)
    assert words in refusal(answer, 400, code, param)
    assert kept(service) == before


async def test_a_file_that_is_no_video_or_too_large_leaves_nothing(http: httpx.AsyncClient, service: Process):
    before = kept(service)
    refusal(await http.post("/v1/videos", files={"file": ("a.mp4", b"text" * 999)}), 400, "InvalidVideo")
    refusal(await http.post("/v1/videos", files={"file": ("a.mp4", bytes(5 << 20))}), 413, "TooLarge", "bytes")
    refusal(await http.post("/v1/videos", files={"video": ("a.mp4", b"text")}), 400, "InvalidOption", "video")
    two = [("file", ("a.mp4", b"text")), ("file", ("b.mp4", b"text"))]
    refusal(await http.post("/v1/videos", files=two), 400, "InvalidInput", "file")
    refusal(await http.post("/v1/videos", data={"scale": "2"}), 400, "InvalidInput")
    refusal(await http.post("/v1/videos", json={"scale": 2}), 400, "InvalidOption", "file")
    assert kept(service) == before


@pytest.mark.parametrize("cut", [0.2, 0.999])
async def test_a_connection_that_breaks_leaves_nothing(service: Process, http: httpx.AsyncClient, clip: Path, cut: float):
    before = kept(service)
    request = http.build_request("POST", "/v1/videos", files={"file": (clip.name, clip.read_bytes())}, data={"scale": "2"})
    body = await request.aread()
    host, port = service.ready["rest_address"].rsplit(":", 1)
    head = f"POST /v1/videos HTTP/1.1\r\nHost: localhost\r\nContent-Type: {request.headers['content-type']}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(head.encode() + body[: int(cut * len(body))])
    async with asyncio.timeout(20):
        # It is kept for as long as nobody knows that the client is gone.
        while kept(service) != before or (await http.get("/v1/videos", params={"status": "queued"})).json()["data"]:
            await asyncio.sleep(0.05)


async def test_an_upload_whose_connection_breaks_keeps_what_was_stored(service: Process, http: httpx.AsyncClient):
    data, sent = bytes(3 << 20), 5 << 19
    upload_id = (await http.post("/v1/uploads", json={"filename": "a.mp4", "bytes": len(data)})).json()["id"]

    async def received() -> int:
        return int((await http.head(f"/v1/uploads/{upload_id}")).headers["upload-offset"])

    host, port = service.ready["rest_address"].rsplit(":", 1)
    head = f"PATCH /v1/uploads/{upload_id} HTTP/1.1\r\nHost: localhost\r\nUpload-Offset: 0\r\nContent-Length: {len(data)}\r\n\r\n"
    async with asyncio.timeout(30):
        with socket.create_connection((host, int(port))) as connection:
            await asyncio.to_thread(connection.sendall, head.encode() + data[:sent])
            while await received() < 2 << 20:
                await asyncio.sleep(0.05)
        status = 409
        while status == 409:
            # The server may just be keeping the last bytes of the broken connection.
            offset = await received()
            answer = await http.patch(f"/v1/uploads/{upload_id}", content=data[offset:], headers={"Upload-Offset": str(offset)})
            status = answer.status_code
    assert answer.json()["sha256"] == hashlib.sha256(data).hexdigest()


async def test_what_is_not_there_is_told_in_the_same_form(http: httpx.AsyncClient):
    refusal(await http.get("/v1/nothing"), 404, "NotFound")
    wrong = await http.put("/v1/videos")
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (405, "invalid_request_error")
    assert "GET" in wrong.headers["allow"]
    refusal(await http.get("/v1/models/none"), 404, "NotFound")
    assert (await http.get("/v1/models/echo")).json()["default"] is True


# ---- around it ----


async def test_probes_and_the_document_need_no_store(http: httpx.AsyncClient):
    assert (await http.get("/healthz")).text == (await http.get("/readyz")).text == "ok\n"
    assert (await http.get("/openapi.json")).json()["openapi"] == "3.1.0"


async def test_a_requests_id_comes_back(http: httpx.AsyncClient):
    assert (await http.get("/v1/videos", headers={"X-Request-Id": "mine-7"})).headers["x-request-id"] == "mine-7"
    assert len((await http.get("/v1/videos", headers={"X-Request-Id": "a b"})).headers["x-request-id"]) == 16


async def test_other_sites_pages_may_not_call_unless_they_are_named(http: httpx.AsyncClient, tmp_path: Path):
    origin = {"Origin": "https://site.example"}
    for method, path in (("GET", "/v1/videos"), ("POST", "/v1/videos"), ("POST", "/v1/videos/any/cancel")):
        refused = await http.request(method, path, headers=origin)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "PermissionDenied")
        assert "access-control-allow-origin" not in refused.headers
    process = gateway(tmp_path / "gateway", rest_address="127.0.0.1:0", rest_cors_origins="https://site.example")
    async with running(process), httpx.AsyncClient(base_url=f"http://{process.ready['rest_address']}") as other:
        assert (await other.get("/v1/videos", headers=origin)).headers["access-control-allow-origin"] == "https://site.example"
        refused = await other.get("/v1/videos", headers={"Origin": "https://else.example"})
        assert "access-control-allow-origin" not in refused.headers


async def test_a_name_that_somebody_made_lead_here_is_refused_unless_it_is_known(http: httpx.AsyncClient, tmp_path: Path):
    rebound = {"Host": "site.example:50052", "Origin": "http://site.example:50052"}
    refused = await http.get("/v1/videos", headers=rebound)
    assert refused.status_code == 421
    assert "SEEDVR2_GATEWAY_REST_HOSTS" in refused.json()["error"]["message"]
    process = gateway(tmp_path / "gateway", rest_address="127.0.0.1:0", rest_hosts="site.example")
    async with running(process), httpx.AsyncClient(base_url=f"http://{process.ready['rest_address']}") as other:
        assert (await other.get("/v1/videos", headers=rebound)).status_code == 200


async def test_a_gateway_that_stops_ends_what_is_watched(clip: Path, tmp_path: Path):
    hold = tmp_path / "hold"
    hold.touch()
    worker = echo_worker(tmp_path / "worker", hold_file=hold)
    async with running(worker):
        process = gateway(tmp_path / "gateway", worker, rest_address="127.0.0.1:0", drain_s=4)
        async with running(process), httpx.AsyncClient(base_url=f"http://{process.ready['rest_address']}", timeout=60) as http:
            video_id = (await created(http, clip))["id"]
            async with http.stream("GET", f"/v1/videos/{video_id}/events") as stream:
                lines = stream.aiter_lines()
                await anext(lines)
                ending = asyncio.create_task(process.end())
                with contextlib.suppress(httpx.RemoteProtocolError):
                    assert "event: ended" not in [line async for line in lines]
            assert await ending == 0


@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
async def test_openais_own_client_restores_a_video(service: Process, clip: Path, tmp_path: Path):
    base = f"http://{service.ready['rest_address']}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="none", max_retries=0) as client:
        video = await client.videos.create(
            prompt="restore it", model="echo", input_reference=clip, extra_body={"short_side": 96, "seed": 3}
        )
        while video.status in ("queued", "in_progress"):
            await asyncio.sleep(0.1)
            video = await client.videos.retrieve(video.id)
        assert (video.status, video.size, video.progress) == ("completed", "128x96", 100)
        (await client.videos.download_content(video.id)).write_to_file(tmp_path / "result.mp4")
        assert greys(tmp_path / "result.mp4") == pytest.approx(greys(clip), abs=3)
        assert video.id in [listed.id async for listed in await client.videos.list(limit=5)]
        assert (await client.videos.delete(video.id)).deleted
        with pytest.raises(openai.NotFoundError, match="There is no job"):
            await client.videos.retrieve(video.id)
