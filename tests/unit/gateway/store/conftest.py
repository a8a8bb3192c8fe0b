"""Stores of both kinds, and several of them over the same objects."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from services.gateway.store.base import Store
from services.gateway.store.local import LocalStore
from services.gateway.store.s3.store import S3Store
from tests.s3 import S3

Opener = Callable[[], Store]
"""Opens a store; those of one test share their objects, as gateways do."""


@pytest.fixture(params=["directory", "s3"])
def opened(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Opener]:
    """Opens stores of a kind, and closes them."""
    stores: list[LocalStore | S3Store] = []

    def open_directory() -> Store:
        stores.append(LocalStore(tmp_path / "s", min_free_bytes=0))
        return stores[-1]

    def open_bucket() -> Store:
        stores.append(S3Store(request.getfixturevalue("s3").settings(tmp_path)))
        return stores[-1]

    yield open_directory if request.param == "directory" else open_bucket
    for store in stores:
        store.close()


@pytest.fixture
def store(opened: Opener) -> Store:
    """A store of each kind."""
    return opened()


@pytest.fixture
def s3_store(s3: S3, tmp_path: Path) -> Iterator[S3Store]:
    """A store in a bucket."""
    store = S3Store(s3.settings(tmp_path))
    yield store
    store.close()


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    """What is written."""
    for piece in data:
        yield piece


async def read(store: Store, key: str, offset: int = 0, length: int | None = None) -> bytes:
    """What is read."""
    return b"".join([piece async for piece in store.read(key, offset, length)])
