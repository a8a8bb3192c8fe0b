"""A store behind a way that fails as it is told."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import pytest_asyncio

from services.gateway.store.s3.objects import Objects
from services.gateway.store.s3.store import S3Store
from tests.fault_proxy import FaultProxy
from tests.s3 import S3


@dataclass
class Behind:
    """An S3 server behind a proxy."""

    proxy: FaultProxy
    s3: S3
    directory: Path
    stores: list[S3Store]

    def store(self, **settings: Any) -> S3Store:
        """A new store over the proxy; all of a test share their objects."""
        values = {"timeout_s": 5.0, **settings}
        self.stores.append(S3Store(self.s3.settings(self.directory, **values)))
        return self.stores[-1]

    def objects(self, **settings: Any) -> Objects:
        """Its objects."""
        return self.store(**settings).objects


@pytest_asyncio.fixture
async def behind(s3: S3, tmp_path: Path) -> AsyncIterator[Behind]:
    """The server, and what goes wrong on the way to it."""
    proxy = FaultProxy(urlsplit(s3.endpoint).netloc, http=True)
    async with proxy.listening():
        it = Behind(proxy, replace(s3, endpoint=f"http://{proxy.address}"), tmp_path, [])
        yield it
        for store in it.stores:
            store.close()


@pytest.fixture
def direct(s3: S3, tmp_path: Path) -> Any:
    """A store that nothing is in the way of, over the same objects."""
    store = S3Store(s3.settings(tmp_path))
    yield store
    store.close()
