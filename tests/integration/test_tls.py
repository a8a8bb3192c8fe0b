"""Real processes that talk by TLS alone: programs to the gateway, the gateway to its worker with certificates on both sides."""

import asyncio
import contextlib
import ssl
import sys
from collections.abc import AsyncIterator
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


@contextlib.asynccontextmanager
async def page(directory: Path, front: Process, **files: Path) -> AsyncIterator[httpx.AsyncClient]:
    """A page before a gateway with TLS; who asks it."""
    settings = {"gateway_address": f"grpcs://{front.address}", "gateway_timeout_s": 5, **files}
    process = Process("services.ui", "SEEDVR2_UI", directory, **settings)
    async with running(process), httpx.AsyncClient(base_url=f"http://{process.address}", timeout=30) as client:
        yield client


async def ready(client: httpx.AsyncClient) -> bool:
    """Whether a page says that it reaches its gateway."""
    return (await client.get("/readyz")).status_code == 200


async def listed(address: str, *options: str | Path) -> tuple[int, str]:
    """What becomes of ``seedvr2 jobs list``."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cli", "jobs", "list", "--server", f"grpcs://{address}", *map(str, options),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    said, _ = await asyncio.wait_for(process.communicate(), 60)
    return process.returncode or 0, said.decode()


async def test_a_gateway_lets_pages_and_commands_in_that_show_a_certificate_and_goes_on_when_it_is_renewed(tmp_path: Path):
    old, new = Authority(tmp_path / "old"), Authority(tmp_path / "new", "the next one")
    pair, shown, trusted = old.sign("gateway"), old.sign("page", "page.example"), tmp_path / "trusted.pem"
    trusted.write_bytes(old.ca.read_bytes())
    front = gateway(tmp_path / "gateway", "127.0.0.1:1", tls_client_ca_file=trusted, **shown_by(pair))
    mine = {"gateway_ca_file": old.ca, "gateway_certificate_file": shown.certificate, "gateway_key_file": shown.key}
    async with running(front), page(tmp_path / "page", front, **mine) as known, page(
        tmp_path / "stranger", front, gateway_ca_file=old.ca
    ) as stranger:  # fmt: skip
        assert await ready(known)
        assert not await ready(stranger)
        own = ("--certificate", shown.certificate, "--key", shown.key)
        assert (await listed(front.address, "--ca", old.ca, *own))[0] == 0
        code, said = await listed(front.address, "--ca", old.ca)
        assert code != 0
        assert "or a certificate that it trusts" in said
        # The gateway comes to trust somebody else, who signs another certificate for the page.
        trusted.write_bytes(new.ca.read_bytes())
        renewed = new.sign("page", "page.example")
        for before, now in zip(shown, renewed, strict=True):
            before.write_bytes(now.read_bytes())
        assert await ready(known)
