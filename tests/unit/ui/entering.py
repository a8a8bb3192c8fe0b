"""The page's server before a gateway that wants tokens."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx

from services.common.addresses import parse_networks
from services.gateway.identity.attempts import FailedLogins
from services.gateway.identity.audit import Audit
from services.gateway.identity.door import Door
from services.gateway.identity.interceptor import CallerInterceptor
from services.gateway.identity.tokens import TokenFile
from tests.integration.identities import Identity, token_file
from tests.unit.ui.fake_gateway import FakeGateway, served
from tests.unit.ui.serving import served_host


@contextlib.asynccontextmanager
async def entering(
    directory: Path, *identities: Identity, failures: int = 100, **settings: Any
) -> AsyncIterator[httpx.AsyncClient]:
    """An HTTP client of the page's server; the gateway lets ``identities`` in."""
    tokens = TokenFile(token_file(directory / "tokens", *identities))
    door = Door([tokens], FailedLogins(per_address=failures, in_all=1000, window_s=60), Audit(None))
    interceptor = CallerInterceptor(door, parse_networks(["127.0.0.1"]))
    async with (
        served(FakeGateway(), interceptor) as address,
        served_host(address, **settings) as host,
        httpx.AsyncClient(base_url=host, timeout=20) as client,
    ):
        yield client
