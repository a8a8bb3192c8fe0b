"""The services behind nginx and Envoy, configured as the chart's objects say: pages, large uploads, streams, ranges.

Times of proxies are divided by a factor, so that seconds stand for minutes. ``make proxies-test`` takes the real times and a
file of 1 GiB.
"""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest
import pytest_asyncio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from tests.clips import make
from tests.e2e.page_fixtures import browse
from tests.integration.gateway_calls import request, sha256, until
from tests.integration.processes import Process, echo_worker, gateway, running
from tests.integration.proxies.proxies import bare, envoy, gateway_routes, ingresses, nginx
from tests.integration.proxies.routes import Ways

WHOLE = os.environ.get("SEEDVR2_PROXIES_WHOLE") == "1"
FASTER = 1.0 if WHOLE else 60.0
"""By how much times are shorter than in a cluster."""
SILENCE_S = 75.0 if WHOLE else 2.5
"""Longer than the 60 s after which nginx, and the 15 s after which Envoy, cut what nobody configured."""
UPLOAD_BYTES = (1 << 30) if WHOLE else 20_000_000
PIECE_BYTES = 4 << 20
_SEEDS = itertools.count(1)
PROXIES: dict[str, tuple[Any, Callable[[], list[Any]]]] = {"nginx": (nginx, ingresses), "envoy": (envoy, gateway_routes)}

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600 if WHOLE else 120), pytest.mark.asyncio(loop_scope="module")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """A gateway with a worker, and a page before it."""

    gateway: Process
    page: Process
    hold: Path
    """While this file exists, jobs stand still after their first segment."""

    @property
    def backends(self) -> dict[str, str]:
        """Addresses by the way that leads to them."""
        return {"page": self.page.address, "rest": str(self.gateway.ready["rest_address"]), "grpc": self.gateway.address}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def services(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Services]:
    directory = tmp_path_factory.mktemp("services")
    worker = echo_worker(directory / "worker", hold_file=directory / "hold")
    async with running(worker):
        back = gateway(directory / "gateway", worker, rest_address="127.0.0.1:0")
        async with running(back):
            page = Process("services.ui", "SEEDVR2_UI", directory / "ui", gateway_address=back.address)
            async with running(page):
                yield Services(gateway=back, page=page, hold=directory / "hold")


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PROXIES)
async def ways(request: Any, services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ways]:
    """Ways in through a proxy."""
    proxy, objects = PROXIES[request.param]
    async with proxy(tmp_path_factory.mktemp("proxy") / "p", objects(), services.backends, faster=FASTER) as found:
        yield found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=PROXIES)
async def unconfigured(request: Any, services: Services, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Ways]:
    """The same with nothing of what the chart's values say for proxies."""
    proxy, objects = PROXIES[request.param]
    async with proxy(tmp_path_factory.mktemp("proxy") / "p", bare(objects()), services.backends, faster=60.0) as found:
        yield found


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make.video(tmp_path_factory.mktemp("clip") / "small.mp4", frames=24)


@pytest.fixture(scope="module")
def large(clip: Path) -> Path:
    """A short video in a large file: what follows the frames is a box that players skip."""
    path = clip.with_name("large.mp4")
    size = UPLOAD_BYTES - clip.stat().st_size
    path.write_bytes(clip.read_bytes() + size.to_bytes(4, "big") + b"free")
    os.truncate(path, UPLOAD_BYTES)
    return path


def web(ways: Ways, kind: str) -> httpx.AsyncClient:
    """An HTTP client of a way in."""
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{ways[kind].port}", timeout=httpx.Timeout(30, read=600))


def client(ways: Ways) -> GatewayClient:
    """A gRPC client of a way in."""
    return GatewayClient(f"127.0.0.1:{ways['grpc'].port}", timeout_s=60)


@contextlib.asynccontextmanager
async def held(services: Services, clip: Path) -> AsyncIterator[str]:
    """A job that stands still."""
    services.hold.touch()
    try:
        async with GatewayClient(services.gateway.address) as near:
            # With a seed of its own, so that no segment of an earlier job is one of its.
            job = await near.create_job(request(await near.upload_file(clip), seed=next(_SEEDS)))
            await until(near, job.job_id, lambda job: job.progress.segments_done == 1)
            yield job.job_id
            services.hold.unlink(missing_ok=True)
            await until(near, job.job_id, lambda job: False)
    finally:
        services.hold.unlink(missing_ok=True)


def told(name: str, size_bytes: int, since: float) -> None:
    """Print how fast something was."""
    seconds = time.monotonic() - since
    print(f"{name}: {size_bytes / 1e6:.0f} MB in {seconds:.1f} s, {size_bytes / 1e6 / seconds:.0f} MB/s")


# ---- the page ----


async def test_a_person_restores_a_video_through_the_proxy(ways: Ways, clip: Path):
    async with browse(f"http://127.0.0.1:{ways['page'].port}") as browsed:
        sockets: list[str] = []
        browsed.page.on("websocket", lambda socket: sockets.append(socket.url))
        await browsed.open()
        await browsed.choose(clip)
        await browsed.page.click("#start:not([disabled])")
        await browsed.page.wait_for_url("**/?job=*")
        # What the page shows comes over the queue's stream of events.
        await browsed.page.wait_for_function("document.getElementById('result-video')?.readyState >= 3")
        assert sockets == [], "the page needs no websockets"


async def test_a_large_file_goes_up_in_pieces_and_comes_back_by_ranges(ways: Ways, large: Path):
    async with web(ways, "page") as http, client(ways) as near:
        name, size, since = f"/files/uploads/large-{ways['page'].port}", large.stat().st_size, time.monotonic()
        assert (await http.put(name, json={"filename": large.name, "size_bytes": size})).is_success
        with large.open("rb") as file:
            while piece := file.read(PIECE_BYTES):
                end = file.tell()
                headers = {"Upload-Offset": str(end - len(piece)), "Upload-Complete": "?1" if end == size else "?0"}
                answer = await http.patch(name, content=piece, headers=headers)
                assert answer.is_success, answer.text
        assert answer.json()["complete"]
        told("upload through the page", size, since)
        job = await near.create_job(request(name.rsplit("/", 1)[1]))
        await until(near, job.job_id, lambda job: False)
        part = await http.get(f"/files/jobs/{job.job_id}/source", headers={"Range": f"bytes={size - 1000}-"})
        assert (part.status_code, part.headers["content-range"]) == (206, f"bytes {size - 1000}-{size - 1}/{size}")
        assert len(part.content) == 1000
        part = await http.get(f"/files/jobs/{job.job_id}/result", headers={"Range": "bytes=100-199"})
        assert (part.status_code, len(part.content)) == (206, 100)


# ---- the HTTP API ----


async def test_a_large_file_goes_up_in_one_request_of_the_http_api(ways: Ways, large: Path):
    async with web(ways, "rest") as http:
        since = time.monotonic()
        with large.open("rb") as file:
            answer = await http.post("/v1/videos", files={"file": (large.name, file, "video/mp4")}, data={"scale": "2"})
        assert answer.status_code == 200, answer.text
        told("upload through the HTTP API", large.stat().st_size, since)


async def test_events_of_a_job_that_stands_still_go_on(ways: Ways, services: Services, clip: Path):
    async with (
        web(ways, "rest") as http,
        held(services, clip) as job_id,
        http.stream("GET", f"/v1/videos/{job_id}/events") as answer,
    ):
        lines = answer.aiter_lines()
        assert "progress" in await _line(lines, "event: ")
        await asyncio.sleep(SILENCE_S)
        services.hold.unlink()
        while "ended" not in await _line(lines, "event: "):
            pass


async def _line(lines: AsyncIterator[str], start: str) -> str:
    async for line in lines:
        if line.startswith(start):
            return line
    raise AssertionError("the stream has ended")


# ---- gRPC ----


async def test_grpc_answers_and_tells_its_health(ways: Ways, services: Services):
    async with client(ways) as near:
        assert (await near.cluster_status()).workers
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ways['grpc'].port}") as channel:
        answer = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
        assert answer.status == health_pb2.HealthCheckResponse.SERVING


async def test_a_large_file_goes_up_and_comes_back_in_one_stream(ways: Ways, large: Path, tmp_path: Path):
    async with client(ways) as near:
        since = time.monotonic()
        upload = await near.upload_file(large)
        told("upload over gRPC", upload.size_bytes, since)
        assert upload.sha256 == await asyncio.to_thread(sha256, large)
        job = await near.create_job(request(upload))
        done = await until(near, job.job_id, lambda job: False)
        await near.download_result(job.job_id, tmp_path / "result.mp4")
        assert sha256(tmp_path / "result.mp4") == done.result.sha256


async def test_a_job_that_stands_still_is_watched_in_one_stream(ways: Ways, services: Services, clip: Path):
    async with grpc.aio.insecure_channel(f"127.0.0.1:{ways['grpc'].port}") as channel:
        stub = gateway_pb2_grpc.GatewayStub(channel)
        async with held(services, clip) as job_id:
            watching = aiter(stub.WatchJob(pb.WatchJobRequest(job_id=job_id)))
            assert (await anext(watching)).job.state == pb.JOB_STATE_RESTORING
            await asyncio.sleep(SILENCE_S)
            services.hold.unlink()
            states = [message.job.state async for message in watching]
            assert states[-1] == pb.JOB_STATE_SUCCEEDED


# ---- without what the chart says ----


@pytest.mark.skipif(WHOLE, reason="times are the real ones")
async def test_without_it_streams_are_cut(unconfigured: Ways, services: Services, clip: Path):
    async with web(unconfigured, "rest") as http, held(services, clip) as job_id:
        with pytest.raises(httpx.RemoteProtocolError):
            async with http.stream("GET", f"/v1/videos/{job_id}/events") as answer:
                async for _ in answer.aiter_lines():
                    pass


@pytest.mark.skipif(WHOLE, reason="times are the real ones")
@pytest.mark.parametrize("unconfigured", ["nginx"], indirect=True)
async def test_without_it_nginx_takes_no_large_file(unconfigured: Ways, large: Path):
    async with web(unconfigured, "rest") as http:
        answer = await http.post("/v1/videos", content=large.read_bytes(), headers={"Content-Type": "video/mp4"})
        assert answer.status_code == 413
