"""Jobs whose source is on the web and whose end is told over the web: real gateways, HTTPS servers on loopback, kills."""

import asyncio
import base64
import contextlib
import hashlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.gateway.webhooks.signing import parse_secrets, signed_headers
from tests.certificates import Authority
from tests.clips import make
from tests.integration.gateway_calls import downloaded, finished, objects, read_all, refused, request, sha256, until
from tests.integration.processes import Process, echo_worker, gateway, running
from tests.s3 import S3, client_of, prefix_of
from tests.unit.gateway.sources.test_fetch import FileServer
from tests.unit.gateway.web.servers import Seen, WebServer, says, server_tls, web_server

pytestmark = [pytest.mark.integration]

SECRET = b"whsec_" + base64.b64encode(b"s" * 32)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.video(tmp_path_factory.mktemp("clip") / "talk.mp4", audio="aac")


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def web_settings(monkeypatch: pytest.MonkeyPatch, authority: Authority, tmp_path: Path) -> None:
    """What gateways of this test may do outside."""
    (tmp_path / "secret").write_bytes(SECRET)
    values = {
        "SOURCES": "true", "ALLOW_NETWORKS": "127.0.0.1", "CA_FILE": str(authority.ca), "WEBHOOK_FIRST_S": "0.1",
        "WEBHOOK_SECRET_FILE": str(tmp_path / "secret"), "TIMEOUT_S": "3",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"SEEDVR2_WEB_{name}", value)


@contextlib.asynccontextmanager
async def service(tmp_path: Path) -> AsyncIterator[tuple[Process, GatewayClient]]:
    worker = echo_worker(tmp_path / "worker")
    async with running(worker):
        process = gateway(tmp_path / "gateway", worker, adopt_s=0.2)
        async with running(process), GatewayClient(process.address) as client:
            yield process, client


def _from(web: WebServer, **options: object) -> pb.JobRequest:
    message = request("x", **options)
    message.source.https_url = f"https://127.0.0.1:{web.port}/films/talk.mp4?signature=secret"
    return message


async def test_a_job_of_a_url_is_the_job_of_the_same_upload(web_settings: None, authority: Authority, clip: Path, tmp_path: Path):
    async with web_server(FileServer(clip.read_bytes()), server_tls(authority)) as web, service(tmp_path) as (process, client):
        job = await client.create_job(_from(web), "fetched")
        assert (job.filename, job.request.source.https_url) == ("talk.mp4", _from(web).source.https_url)
        done = await finished(client, job.job_id)
        upload = await client.upload_file(clip)
        await finished(client, (await client.create_job(request(upload), "uploaded")).job_id)
        results = [sha256(await downloaded(client, name, tmp_path / f"{name}.mp4")) for name in ("fetched", "uploaded")]
        assert results[0] == results[1]
        assert await read_all(await client.read_source("fetched")) == clip.read_bytes()
        assert done.result.filename == "talk_restored.mp4"
        assert len(web.seen) == 1
        # The other job of the same source keeps its segments; the fetched bytes go with their job.
        await client.delete_job("fetched")
        assert not [name for name in objects(tmp_path / "gateway") if "fetched" in name]
        assert (await client.playlist("uploaded")).segments == 3
        assert "signature" not in process.log


async def test_a_gateway_that_is_killed_while_it_fetches_goes_on_where_it_was(
    web_settings: None, authority: Authority, clip: Path, tmp_path: Path
):
    # The clip is small; what follows it in the file is not looked at.
    content = clip.read_bytes() + b"\0" * (4 << 20)
    server, go_on = FileServer(content), asyncio.Event()

    async def stopping(seen: Seen, writer: asyncio.StreamWriter) -> None:
        if "range" not in seen.headers:
            writer.write(f'HTTP/1.1 200 OK\r\nETag: "1"\r\nContent-Length: {len(content)}\r\n\r\n'.encode() + content[: 2 << 20])
            await writer.drain()
            await go_on.wait()
        else:
            await server(seen, writer)

    async with web_server(stopping, server_tls(authority)) as web, service(tmp_path) as (process, client):
        await client.create_job(_from(web), "fetched")
        job = await until(client, "fetched", lambda job: job.progress.stage == "fetch" and job.progress.stage_fraction > 0.2)
        assert job.state == pb.JOB_STATE_PENDING
        await process.kill()
        go_on.set()
        await process.restart()
        await finished(client, "fetched")
        assert int(web.seen[-1].headers["range"].removeprefix("bytes=").removesuffix("-")) >= 1 << 20
        info, pieces = await client.read_source("fetched")
        assert hashlib.sha256(b"".join([piece async for piece in pieces])).hexdigest() == hashlib.sha256(content).hexdigest()
        assert info.size_bytes == len(content)


async def test_a_source_that_is_no_video_fails_its_job_and_a_retry_fetches_it_again(
    web_settings: None, authority: Authority, clip: Path, tmp_path: Path
):
    server = FileServer(b"<html>not a video</html>")
    async with web_server(server, server_tls(authority)) as web, service(tmp_path) as (_, client):
        await client.create_job(_from(web), "fetched")
        job = await client.wait_job("fetched")
        assert (job.state, job.failure.reason) == (pb.JOB_STATE_FAILED, "InvalidVideo")
        server.content = clip.read_bytes()
        await client.retry_job("fetched")
        await finished(client, "fetched")


async def test_what_a_url_must_not_be_is_refused_before_a_job_is_made(web_settings: None, tmp_path: Path):
    async with service(tmp_path) as (_, client):
        for url, text in (
            ("http://example.com/a.mp4", "begins with http;"),
            ("https://user:pass@example.com/a.mp4", "user name"),
            ("https://169.254.169.254/latest/meta-data", "no public address"),
            ("https://[::1]/a.mp4", "no public address"),
        ):
            message = request("x")
            message.source.https_url = url
            reason = "InvalidInput" if "public" in text else "InvalidOption"
            with refused(grpc.StatusCode.INVALID_ARGUMENT, reason, text, "request.source.https_url"):
                await client.create_job(message)
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "InvalidInput", "no public address", "request.webhook_url"):
            await client.create_job(request("x", webhook_url="https://10.0.0.1/hook"))
        assert not (await client.list_jobs()).jobs


async def test_without_settings_nothing_outside_is_offered(clip: Path, tmp_path: Path):
    async with service(tmp_path) as (_, client):
        upload = await client.upload_file(clip)
        with refused(grpc.StatusCode.UNIMPLEMENTED, "NotSupported", "watch the job", "request.webhook_url"):
            await client.create_job(request(upload, webhook_url="https://example.com/hook"))


async def test_a_webhook_arrives_although_its_receiver_failed_and_the_gateway_was_killed_between_tries(
    web_settings: None, authority: Authority, clip: Path, tmp_path: Path
):
    tried = asyncio.Event()

    async def failing(seen: Seen, writer: asyncio.StreamWriter) -> None:
        await says("503 Service Unavailable")(seen, writer)
        if len(receiver.seen) >= 2:
            tried.set()

    async with web_server(failing, server_tls(authority)) as receiver, service(tmp_path) as (process, client):
        upload = await client.upload_file(clip)
        url = f"https://127.0.0.1:{receiver.port}/hook"
        await finished(client, (await client.create_job(request(upload, webhook_url=url), "told")).job_id)
        await tried.wait()
        await process.kill()
        arrived = asyncio.Event()

        async def taking(seen: Seen, writer: asyncio.StreamWriter) -> None:
            await says("204 No Content")(seen, writer)
            arrived.set()

        receiver.respond = taking
        before = len(receiver.seen)
        await process.restart()
        await asyncio.wait_for(arrived.wait(), 30)
        seen = receiver.seen[before]
        assert {each.headers["webhook-id"] for each in receiver.seen} == {seen.headers["webhook-id"]}
        signed = signed_headers(
            seen.headers["webhook-id"], int(seen.headers["webhook-timestamp"]), seen.body, parse_secrets(SECRET)
        )
        assert seen.headers["webhook-signature"] == dict(signed)["webhook-signature"]
        record = json.loads(seen.body)
        assert (record["type"], record["data"]["job_id"], record["data"]["result"]["frames"]) == ("job.succeeded", "told", "24")
        while any(path.is_file() for path in (tmp_path / "gateway/store/webhooks").rglob("*")):
            await asyncio.sleep(0.05)
        assert SECRET.decode() not in process.log


@pytest.fixture
def bucket_settings(monkeypatch: pytest.MonkeyPatch, s3: S3, tmp_path: Path) -> str:
    """What gateways of this test may do in a bucket; returns a prefix that is allowed."""
    (tmp_path / "access").write_text(s3.access_key)
    (tmp_path / "bucket-secret").write_text(s3.secret_key)
    prefix = prefix_of(tmp_path)
    values = {
        "ENDPOINT": s3.endpoint, "REGION": s3.region, "ACCESS_KEY_FILE": str(tmp_path / "access"),
        "SECRET_KEY_FILE": str(tmp_path / "bucket-secret"), "SOURCES": f"{s3.bucket}/{prefix}in/{{subject}}/",
        "RESULTS": f"{s3.bucket}/{prefix}out/",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(f"SEEDVR2_BUCKETS_{name}", value)
    return prefix


async def test_a_job_goes_from_a_bucket_to_a_bucket(bucket_settings: str, s3: S3, clip: Path, tmp_path: Path):
    bucket = client_of(s3)
    bucket.fput_object(s3.bucket, f"{bucket_settings}in/local/talk.mp4", str(clip))
    async with service(tmp_path) as (_, client):
        message = request("x", result_uri=f"s3://{s3.bucket}/{bucket_settings}out/better.mp4")
        message.source.object_uri = f"s3://{s3.bucket}/{bucket_settings}in/local/talk.mp4"
        job = await finished(client, (await client.create_job(message, "there")).job_id)
        assert f"The result is also at {message.result_uri}." in job.notes
        result = (await downloaded(client, "there", tmp_path / "r.mp4")).read_bytes()
        assert bucket.get_object(s3.bucket, f"{bucket_settings}out/better.mp4").data == result
        for field, uri in (("source.object_uri", "in/other/talk.mp4"), ("result_uri", "in/local/better.mp4")):
            wrong = pb.JobRequest()
            wrong.CopyFrom(message)
            if field == "result_uri":
                wrong.result_uri = f"s3://{s3.bucket}/{bucket_settings}{uri}"
            else:
                wrong.source.object_uri = f"s3://{s3.bucket}/{bucket_settings}{uri}"
            with refused(grpc.StatusCode.INVALID_ARGUMENT, "InvalidOption", "must lie under", f"request.{field}"):
                await client.create_job(wrong)
