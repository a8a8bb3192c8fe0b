import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.client import GatewayClient
from tests.unit.common.fake_gateway import FakeGateway, serving
from tests.unit.common.relay import Relay, relay_to

SIZE_BYTES = (6 << 20) + 123


@pytest.fixture
async def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
async def relay(gateway: FakeGateway) -> AsyncIterator[Relay]:
    async with serving(gateway) as port, relay_to(port) as relay:
        yield relay


@pytest.fixture
async def client(relay: Relay) -> AsyncIterator[GatewayClient]:
    async with GatewayClient(relay.address, timeout_s=10, patience_s=10) as client:
        yield client


@pytest.fixture
def video(tmp_path: Path) -> Path:
    path = tmp_path / "film.mp4"
    path.write_bytes(os.urandom(SIZE_BYTES))
    return path
