"""Real processes that talk by TLS alone: programs to the gateway, the gateway to its worker with certificates on both sides."""

import asyncio
import ssl
from pathlib import Path

import grpc
import httpx
import pytest

from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import worker_pb2, worker_pb2_grpc
from services.common.rpc.server import open_channel
from services.common.rpc.tls import ChannelTls
from tests.certificates import Authority, Pair
from tests.clips import make
from tests.integration.gateway_calls import finished, request
from tests.integration.processes import Process, gateway, running

pytestmark = pytest.mark.integration


def shown_by(pair: Pair) -> dict[str, Path]:
    return {"tls_certificate_file": pair.certificate, "tls_key_file": pair.key}


async def answer(address: str, tls: ChannelTls | None) -> grpc.StatusCode:
    """How a worker answers to whoever shows this."""
    async with open_channel(address, tls) as channel:
        call = worker_pb2_grpc.WorkerStub(channel).Status(worker_pb2.StatusRequest(), timeout=20)
        return await call.code()


async def test_a_job_is_done_by_a_worker_that_lets_its_gateway_in_and_nobody_else(tmp_path: Path):
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others", "somebody else")
    worker_pair, gateway_pair, stranger = ours.sign("worker", "worker"), ours.sign("gateway"), others.sign("stranger")
    settings = {"metrics_address": "", "torch_threads": 1, "tls_client_ca_file": ours.ca, **shown_by(worker_pair)}
    worker = Process("services.inference", "SEEDVR2_INFERENCE", tmp_path / "worker", **settings)
    async with running(worker):
        front = gateway(
            tmp_path / "gateway", worker, rest_address="127.0.0.1:0", worker_ca_file=ours.ca, worker_tls_name="worker",
            worker_certificate_file=gateway_pair.certificate, worker_key_file=gateway_pair.key, **shown_by(gateway_pair),
        )  # fmt: skip
        async with running(front), GatewayClient(f"grpcs://{front.address}", tls=ChannelTls(ca=ours.ca)) as client:
            upload = await client.upload_file(make.video(tmp_path / "a.mp4", frames=8))
            async with asyncio.timeout(120):
                while not any(model.ready for model in (await client.models()).models):
                    await asyncio.sleep(0.2)
            job = await client.create_job(request(upload, scale=1.0))
            assert (await finished(client, job.job_id)).result.frames == 8
            async with httpx.AsyncClient(
                verify=ssl.create_default_context(cafile=ours.ca), base_url=f"https://{front.ready['rest_address']}"
            ) as http:
                assert (await http.get(f"/v1/videos/{job.job_id}")).json()["status"] == "completed"
        named = ChannelTls(ca=ours.ca, server_name="worker")
        wrong = ChannelTls(ca=ours.ca, certificate=stranger.certificate, key=stranger.key, server_name="worker")
        right = ChannelTls(ca=ours.ca, certificate=gateway_pair.certificate, key=gateway_pair.key, server_name="worker")
        assert await answer(worker.address, right) is grpc.StatusCode.OK
        for tls in (None, named, wrong):
            assert await answer(worker.address, tls) is grpc.StatusCode.UNAVAILABLE
