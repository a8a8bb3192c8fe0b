"""The page's server on a real port, in front of a FakeGateway."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from services.common.client import GatewayClient
from services.common.http.serve import address_of, bound_socket
from services.common.metrics import UiMetrics
from services.ui.app import build_app, build_host
from services.ui.serve import PageServer
from services.ui.settings import UiSettings
from services.ui.visitor import visitor_login
from tests.unit.ui.fake_gateway import FakeGateway, served


@contextlib.asynccontextmanager
async def served_page(gateway_address: str, **settings: Any) -> AsyncIterator[str]:
    """The address, http://host:port, of the whole application for a gateway at an address, where perhaps none is."""
    values = _settings(gateway_address, settings)
    async with _client(values) as client, _served(build_app(client, values, CollectorRegistry()), values) as page:
        yield page


@contextlib.asynccontextmanager
async def served_host(gateway_address: str, **settings: Any) -> AsyncIterator[str]:
    """The same without the page, which takes longest to build."""
    values, registry = _settings(gateway_address, settings), CollectorRegistry()
    async with _client(values) as client, _served(build_host(client, values, registry, UiMetrics(registry)), values) as host:
        yield host


@contextlib.asynccontextmanager
async def browsing(gateway: FakeGateway, **settings: Any) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the file routes in front of ``gateway``."""
    async with (
        served(gateway) as address,
        served_host(address, **settings) as host,
        httpx.AsyncClient(base_url=host, timeout=20) as client,
    ):
        yield client


async def upload(client: httpx.AsyncClient, data: bytes, upload_id: str = "clip", filename: str = "clip.mp4") -> None:
    """Upload ``data`` in one piece."""
    begun = await client.put(f"/files/uploads/{upload_id}", json={"filename": filename, "size_bytes": len(data)})
    assert begun.status_code == 200, begun.text
    headers = {"Upload-Offset": "0", "Upload-Complete": "?1"}
    sent = await client.patch(f"/files/uploads/{upload_id}", content=data, headers=headers)
    assert sent.json()["complete"], sent.text


def _settings(gateway_address: str, changed: dict[str, Any]) -> UiSettings:
    return UiSettings(**{"address": "127.0.0.1:0", "gateway_address": gateway_address, "drain_s": 0.0, **changed})


def _client(settings: UiSettings) -> GatewayClient:
    return GatewayClient(settings.gateway_address, timeout_s=settings.gateway_timeout_s, login=visitor_login)


@contextlib.asynccontextmanager
async def _served(app: FastAPI, settings: UiSettings) -> AsyncIterator[str]:
    listener = bound_socket(settings.address)
    server = PageServer(app, listener, settings.drain_s)
    stop = asyncio.Event()
    serving = asyncio.create_task(server.run_until(stop))
    await server.wait_listening()
    try:
        yield f"http://{address_of(listener)}"
    finally:
        stop.set()
        await serving
