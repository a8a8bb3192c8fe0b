"""With a real Prometheus: what the chart's autoscalers ask for, while pools have no worker at all."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from services.common.client import GatewayClient
from tests.clips import make
from tests.helm.chart import Object, render
from tests.integration.gateway_calls import finished, request, until
from tests.integration.processes import Process, echo_worker, gateway, running
from tests.integration.prometheus import NAMESPACE, Monitoring, monitoring

pytestmark = pytest.mark.integration

FRAMES = 8
POOLS = ("large", "small", "other")


def queries() -> dict[str, str]:
    """What KEDA asks Prometheus, by pool."""
    pools = [{"name": name, "autoscaling": {"type": "keda", "min": 0, "prometheusAddress": "http://p:9090"}} for name in POOLS]
    scaled: list[Object] = render({"inference": {"pools": pools}}).all("ScaledObject")
    return {
        each["spec"]["scaleTargetRef"]["name"].rpartition("-")[2]: each["spec"]["triggers"][0]["metadata"]["query"]
        for each in scaled
    }


@dataclass(frozen=True)
class Fleet:
    """Three pools; ``large`` and ``small`` serve the same model."""

    front: Process
    workers: dict[str, Process]
    prometheus: Monitoring

    async def asked(self) -> dict[str, float]:
        """What KEDA gets to hear."""
        found = {pool: await self.prometheus.query(query) for pool, query in queries().items()}
        assert all(len(series) == 1 for series in found.values()), found
        return {pool: float(series[0]["value"][1]) for pool, series in found.items()}

    async def until_asked(self, **wanted: float) -> None:
        """Wait until KEDA hears this."""
        async with asyncio.timeout(60):
            while (found := await self.asked()) != wanted:
                await asyncio.sleep(0.1)
        assert found == wanted


@asynccontextmanager
async def fleet(directory: Path) -> AsyncIterator[Fleet]:
    """Every pool has been there, and is gone; the gateway was started since."""
    models = {"large": "echo", "small": "echo", "other": "another"}
    workers = {pool: echo_worker(directory / pool, pool=pool, models=models[pool]) for pool in POOLS}
    async with running(*workers.values()):
        listed = [f"{pool}={worker.address}" for pool, worker in workers.items()]
        front = gateway(directory / "gateway", *listed, metrics_address="127.0.0.1:0")
        async with running(front):
            for worker in workers.values():
                await worker.kill()
            await front.end()
            await front.restart()
            (directory / "rules.yaml").write_text("groups: []")
            targets = {"g": front.ready["metrics_address"]}
            async with monitoring(directory / "prometheus", targets, directory / "rules.yaml") as prometheus:
                await prometheus.until(f'seedvr2_queued_megapixels{{namespace="{NAMESPACE}"}}')
                yield Fleet(front=front, workers=workers, prometheus=prometheus)


async def test_what_waits_starts_workers_in_one_pool_and_in_no_other(tmp_path: Path):
    async with fleet(tmp_path) as it, GatewayClient(it.front.address) as client:
        assert await it.asked() == {"large": 0, "small": 0, "other": 0}
        upload = await client.upload_file(make.video(tmp_path / "a.mp4", frames=FRAMES))
        megapixels = FRAMES * 128 * 96 / 1e6
        await client.create_job(request(upload, model="echo"), "anywhere")
        await it.until_asked(large=megapixels, small=0, other=0)
        await client.create_job(request(upload, model="echo", pool="small"), "there")
        await client.create_job(request(upload, model="another"), "elsewhere")
        await it.until_asked(large=megapixels, small=megapixels, other=megapixels)
        assert (await until(client, "elsewhere", lambda job: job.progress.stage == "waiting")).progress.stage == "waiting"
        for worker in it.workers.values():
            await worker.restart()
        for job_id in ("anywhere", "there", "elsewhere"):
            await finished(client, job_id)
        await it.until_asked(large=0, small=0, other=0)
