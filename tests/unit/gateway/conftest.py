from collections.abc import AsyncIterator
from pathlib import Path

import pytest_asyncio

from tests.fakes.kubernetes.cluster import Cluster
from tests.fakes.kubernetes.cluster import cluster as cluster_of


@pytest_asyncio.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    """The fake cluster, or the real one that the environment names."""
    async with cluster_of(tmp_path) as it:
        yield it
