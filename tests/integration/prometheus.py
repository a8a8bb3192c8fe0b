"""A real Prometheus with a real Alertmanager, which tells a web hook."""

import asyncio
import os
import shutil
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from aiohttp import web

from tests.s3 import free_ports

_READY_S, _STOP_S, _POLL_S = 30.0, 10.0, 0.1
NAMESPACE = "video"


@dataclass
class Monitoring:
    """What scrapes and what warns."""

    address: str
    """Of Prometheus, host:port."""

    told: list[dict[str, Any]] = field(default_factory=list)
    """Alerts that reached the web hook, as Alertmanager sends them."""

    async def query(self, expression: str) -> list[dict[str, Any]]:
        """The series of an instant query. Fails the test where Prometheus can't read it."""
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{self.address}/api/v1/query", params={"query": expression})
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    async def query_range(self, expression: str, start: float, end: float, step_s: float) -> list[dict[str, Any]]:
        """The series of a query over a time, in seconds since 1970."""
        asked = {"query": expression, "start": start, "end": end, "step": step_s}
        async with httpx.AsyncClient() as client:
            answer = await client.get(f"http://{self.address}/api/v1/query_range", params=asked)
        assert answer.status_code == 200, f"{expression}: {answer.text}"
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    async def until(self, expression: str, within_s: float = 60.0) -> list[dict[str, Any]]:
        """The series of a query as soon as there are some."""
        async with asyncio.timeout(within_s):
            while not (found := await self.query(expression)):
                await asyncio.sleep(_POLL_S)
        return found

    async def until_told(self, alert: str, within_s: float = 60.0) -> dict[str, Any]:
        """An alert at the web hook, once it is there."""
        async with asyncio.timeout(within_s):
            while not (found := [each for each in self.told if each["labels"]["alertname"] == alert]):
                await asyncio.sleep(_POLL_S)
        return found[0]


@asynccontextmanager
async def monitoring(directory: Path, targets: Mapping[str, str], rules: Path) -> AsyncIterator[Monitoring]:
    """Scrape ``targets``, an address by pod, every second; ``rules`` in Prometheus's own form."""
    directory.mkdir(parents=True, exist_ok=True)
    ports = free_ports(3)
    it = Monitoring(address=f"127.0.0.1:{ports[0]}")
    (directory / "prometheus.yml").write_text(yaml.safe_dump(_prometheus(targets, rules, ports[1])))
    (directory / "alertmanager.yml").write_text(yaml.safe_dump(_alertmanager(ports[2])))
    async with _web_hook(it, ports[2]):
        warns = await _start(
            "prometheus-alertmanager", directory, f"--config.file={directory}/alertmanager.yml", f"--storage.path={directory}/am",
            f"--web.listen-address=127.0.0.1:{ports[1]}", "--cluster.listen-address=",
        )  # fmt: skip
        scrapes = await _start(
            "prometheus", directory, f"--config.file={directory}/prometheus.yml", f"--storage.tsdb.path={directory}/data",
            f"--web.listen-address={it.address}",
        )  # fmt: skip
        try:
            await _ready(it.address, scrapes)
            yield it
        finally:
            await asyncio.gather(_stop(scrapes), _stop(warns))


def _prometheus(targets: Mapping[str, str], rules: Path, alertmanager_port: int) -> dict[str, Any]:
    scraped = [
        {"targets": [address], "labels": {"namespace": NAMESPACE, "pod": pod}} for pod, address in targets.items()
    ]  # fmt: skip
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(rules)],
        "scrape_configs": [{"job_name": "seedvr2", "static_configs": scraped}],
        "alerting": {"alertmanagers": [{"static_configs": [{"targets": [f"127.0.0.1:{alertmanager_port}"]}]}]},
    }


def _alertmanager(hook_port: int) -> dict[str, Any]:
    hook = {"url": f"http://127.0.0.1:{hook_port}/", "send_resolved": False}
    return {
        "route": {"receiver": "hook", "group_wait": "0s", "group_interval": "1s", "group_by": ["..."]},
        "receivers": [{"name": "hook", "webhook_configs": [hook]}],
    }


@asynccontextmanager
async def _web_hook(it: Monitoring, port: int) -> AsyncIterator[None]:
    async def take(request: web.Request) -> web.Response:
        it.told.extend((await request.json())["alerts"])
        return web.Response()

    app = web.Application()
    app.router.add_post("/", take)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield
    finally:
        await runner.cleanup()


async def _start(program: str, directory: Path, *arguments: str) -> asyncio.subprocess.Process:
    binary = shutil.which(program)
    if binary is None:
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(f"{program} is not installed")
    with (directory / f"{program}.log").open("wb") as log:
        return await asyncio.create_subprocess_exec(binary, *arguments, stdout=log, stderr=log)


async def _ready(address: str, process: asyncio.subprocess.Process) -> None:
    async with asyncio.timeout(_READY_S), httpx.AsyncClient() as client:
        while True:
            assert process.returncode is None
            try:
                if (await client.get(f"http://{address}/-/ready")).status_code == 200:
                    return
            except httpx.TransportError:
                pass
            await asyncio.sleep(_POLL_S)


async def _stop(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        process.terminate()
    await asyncio.wait_for(process.wait(), _STOP_S)
