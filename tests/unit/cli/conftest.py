from collections.abc import AsyncIterator

import pytest

from tests.unit.common.fake_gateway import FakeGateway, serving


@pytest.fixture
async def gateway() -> FakeGateway:
    return FakeGateway()


@pytest.fixture
async def server(gateway: FakeGateway) -> AsyncIterator[str]:
    """Address of ``gateway``."""
    async with serving(gateway) as port:
        yield f"127.0.0.1:{port}"
