"""Proxies as processes, with what the chart renders."""

import asyncio
import contextlib
import json
import shutil
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.helm.chart import CHART, Object, render
from tests.integration.proxies.envoy import envoy_configuration
from tests.integration.proxies.nginx import nginx_configuration
from tests.integration.proxies.routes import KINDS, Way, Ways

_START_S, _STOP_S, _POLL_S = 20.0, 10.0, 0.02
_PROTOCOL = "nginx.ingress.kubernetes.io/backend-protocol"
# In the tests nothing is encrypted behind the proxy; all else is as in production.
_PLAIN = {"ingress": {"grpc": {"annotations": {_PROTOCOL: "GRPC"}}, "rest": {"annotations": {_PROTOCOL: "HTTP"}}}}


def ingresses() -> list[Object]:
    """The Ingresses of an installation for production."""
    return render(_PLAIN, CHART / "ci/production.yaml").all("Ingress")


def gateway_routes() -> list[Object]:
    """The routes of an installation with the Gateway API."""
    rendered = render(None, CHART / "ci/gateway-api.yaml")
    return rendered.all("HTTPRoute") + rendered.all("GRPCRoute")


def bare(objects: list[Object]) -> list[Object]:
    """The same, with nothing but what a controller can't do without: protocol and match."""
    found: list[Object] = json.loads(json.dumps(objects))
    for each in found:
        notes = each["metadata"].get("annotations", {})
        each["metadata"]["annotations"] = {name: text for name, text in notes.items() if name == _PROTOCOL}
        for rule in each["spec"]["rules"]:
            rule.pop("timeouts", None)
    return found


@contextlib.asynccontextmanager
async def nginx(directory: Path, objects: list[Object], backends: dict[str, str], *, faster: float) -> AsyncIterator[Ways]:
    """nginx as an ingress controller for some Ingresses."""
    binary = _required(shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin"), "apt-get install nginx")
    ways = _ways(backends)
    directory.mkdir(parents=True)
    (directory / "nginx.conf").write_text(nginx_configuration(objects, ways, faster=faster))
    async with _process(directory, ways, binary, "-p", ".", "-c", "nginx.conf", "-e", "stderr", "-g", "daemon off;"):
        yield ways


@contextlib.asynccontextmanager
async def envoy(directory: Path, objects: list[Object], backends: dict[str, str], *, faster: float) -> AsyncIterator[Ways]:
    """Envoy as a Gateway for some routes."""
    beside = Path(sys.executable).with_name("envoy")
    binary = _required(str(beside) if beside.exists() else shutil.which("envoy"), "pip install -r requirements-dev.txt")
    ways = _ways(backends)
    directory.mkdir(parents=True)
    (directory / "envoy.json").write_text(json.dumps(envoy_configuration(objects, ways, faster=faster)))
    arguments = ("-c", "envoy.json", "--concurrency", "1", "--disable-hot-restart", "-l", "warn")
    async with _process(directory, ways, binary, *arguments):
        yield ways


def _required(binary: str | None, how: str) -> str:
    if binary is None:
        pytest.fail(f"A proxy is missing: {how}")
    return binary


def _ways(backends: dict[str, str]) -> Ways:
    with contextlib.ExitStack() as stack:
        free = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in KINDS]
        return {kind: Way(port=s.getsockname()[1], backend=backends[kind]) for kind, s in zip(KINDS, free, strict=True)}


@contextlib.asynccontextmanager
async def _process(directory: Path, ways: Ways, *command: str) -> AsyncIterator[None]:
    with (directory / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*command, cwd=directory, stdout=log, stderr=log)
    try:
        async with asyncio.timeout(_START_S):
            for way in ways.values():
                while not await _listens(way.port):
                    assert process.returncode is None, (directory / "log").read_text()
                    await asyncio.sleep(_POLL_S)
        yield
    finally:
        if process.returncode is None:
            process.terminate()
        await asyncio.wait_for(process.wait(), _STOP_S)


async def _listens(port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return False
    writer.close()
    return True
