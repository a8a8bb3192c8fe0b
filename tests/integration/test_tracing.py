"""One request, through gateway, worker and rank: its ids in every log, its spans at a collector, whoever goes on with it."""

import asyncio
import itertools
import json
from pathlib import Path

import grpc
import httpx
import pytest

from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from tests.clips import make
from tests.integration.gateway_calls import finished, request, until
from tests.integration.processes import Process, echo_worker, gateway, running
from tests.otlp_receiver import Receiver, receiving

pytestmark = pytest.mark.integration

TRACE = "0af7651916cd43dd8448eb211c80319c"
IDS = (("x-request-id", "req-7"), ("traceparent", f"00-{TRACE}-b7ad6b7169203331-01"), ("tracestate", "vendor=1"))


def lines_of(process: Process) -> list[dict[str, str]]:
    """What it and its children wrote for the request."""
    lines = [json.loads(line) for line in process.log.splitlines() if line.startswith("{")]
    return [line for line in lines if line.get("request_id") == "req-7"]


async def create(address: str, message: pb.CreateJobRequest) -> None:
    async with grpc.aio.insecure_channel(address) as channel:
        call = gateway_pb2_grpc.GatewayStub(channel).CreateJob(message, metadata=IDS)
        await call
        assert dict(await call.initial_metadata())["x-request-id"] == "req-7"


async def test_a_request_can_be_followed_to_the_rank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    clip = make.video(tmp_path / "a.mp4", frames=8)
    async with receiving() as (receiver, endpoint):
        monkeypatch.setenv("SEEDVR2_TRACING_ENDPOINT", endpoint)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "200")
        worker = Process("services.inference", "SEEDVR2_INFERENCE", tmp_path / "worker", metrics_address="", torch_threads=1)
        async with running(worker):
            front = gateway(tmp_path / "gateway", worker)
            async with running(front), GatewayClient(front.address) as client:
                upload = await client.upload_file(clip)
                await until_model(client)
                await create(front.address, pb.CreateJobRequest(job_id="job", request=request(upload, scale=1.0)))
                await finished(client, "job")
                await receiver.until(lambda spans: {"job", "restore", "dit"} <= {span.name for _, span in spans})
        check_spans(receiver)
    for process, services in ((front, {"gateway"}), (worker, {"inference", "inference-rank-0"})):
        lines = lines_of(process)
        assert {line["service"] for line in lines} == services
        assert {line["trace_id"] for line in lines} == {TRACE}
    assert {line["job_id"] for line in lines if line["message"] != "call answered"} == {"job"}


def check_spans(receiver: Receiver) -> None:
    """All in one trace, each below the one that caused it."""
    ours = {span.name: (service, span) for service, span in receiver.spans if span.trace_id.hex() == TRACE}
    created = ours["seedvr2.v1.Gateway/CreateJob"][1]
    chain = ("seedvr2.v1.Gateway/CreateJob", "job", "restore span", "seedvr2.v1.Worker/Restore", "restore", "dit")
    assert created.parent_span_id.hex() == "b7ad6b7169203331"
    for above, below in itertools.pairwise(chain):
        assert ours[below][1].parent_span_id == ours[above][1].span_id, below
    assert {"probe", "plan", "join"} <= ours.keys()
    assert ours["dit"][0] == "seedvr2-inference"
    assert created.trace_state == "vendor=1"


async def until_model(client: GatewayClient) -> None:
    """Until a worker has said what it serves."""
    async with asyncio.timeout(120):
        while not any(model.ready for model in (await client.models()).models):
            await asyncio.sleep(0.2)


async def test_a_job_that_another_gateway_goes_on_with_keeps_its_request_and_trace(tmp_path: Path):
    clip = make.video(tmp_path / "a.mp4", frames=32)
    worker = echo_worker(tmp_path / "worker", hold_file=tmp_path / "hold")
    (tmp_path / "hold").touch()
    async with running(worker):
        front = gateway(tmp_path / "gateway", worker)
        async with running(front):
            async with GatewayClient(front.address) as client:
                upload = await client.upload_file(clip)
                await create(front.address, pb.CreateJobRequest(job_id="job", request=request(upload)))
                await until(client, "job", lambda job: job.progress.segments_done == 1)
            await front.kill()
            before = len(front.log)
            (tmp_path / "hold").unlink()
            await front.restart()
            async with GatewayClient(front.address) as client:
                await finished(client, "job")
            lines = [json.loads(line) for line in front.log[before:].splitlines()]
    sent = [line for line in lines if line["message"] == "span sent"]
    assert [(line["request_id"], line["trace_id"], line["job_id"]) for line in sent] == [("req-7", TRACE, "job")]


async def test_a_job_that_is_made_by_http_keeps_its_request_and_trace(tmp_path: Path):
    clip = make.video(tmp_path / "a.mp4", frames=8)
    worker = echo_worker(tmp_path / "worker")
    async with running(worker):
        front = gateway(tmp_path / "gateway", worker, rest_address="127.0.0.1:0")
        async with running(front), httpx.AsyncClient(base_url=f"http://{front.ready['rest_address']}", timeout=60) as http:
            made = await http.post("/v1/videos", files={"file": ("a.mp4", clip.read_bytes())}, headers=dict(IDS))
            assert made.headers["x-request-id"] == "req-7"
            async with GatewayClient(front.address) as client:
                await finished(client, made.json()["id"])
        sent = [line for line in lines_of(front) if line["message"] == "span sent"]
    assert [(line["trace_id"], line["job_id"]) for line in sent] == [(TRACE, made.json()["id"])]
