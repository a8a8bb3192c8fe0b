import contextlib
import io
import os
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

import pytest

from services.common.errors import InvalidInput, Unavailable
from services.gateway.buckets.buckets import Buckets, BucketSource
from services.gateway.buckets.rules import Place
from services.gateway.buckets.settings import BucketSettings
from tests.s3 import S3, client_of, prefix_of

FIELD = "request.source.object_uri"
FILM = os.urandom((11 << 20) + 3)


@pytest.fixture
def buckets(s3: S3, tmp_path: Path) -> Iterator[Buckets]:
    with contextlib.closing(Buckets(_settings(s3, tmp_path))) as buckets:
        yield buckets


def _settings(s3: S3, directory: Path, secret: str = "") -> BucketSettings:
    (directory / "access").write_text(s3.access_key)
    (directory / "secret").write_text(secret or s3.secret_key)
    return BucketSettings(
        endpoint=s3.endpoint, region=s3.region, access_key_file=str(directory / "access"),
        secret_key_file=str(directory / "secret"), tries=2, retry_s=2.0,
    )  # fmt: skip


def _place(s3: S3, directory: Path, name: str = "film.mp4") -> Place:
    return Place(bucket=s3.bucket, key=prefix_of(directory) + name)


async def _pieces(data: bytes) -> AsyncGenerator[bytes, None]:
    for start in range(0, len(data), 1 << 20):
        yield data[start : start + (1 << 20)]


async def _read(source: BucketSource, offset: int = 0, tag: str = "") -> tuple[int, str, bytes]:
    async with source.open(offset, tag) as stream:
        return stream.offset, stream.tag, b"".join([piece async for piece in stream.pieces])


async def test_what_is_written_is_read_from_anywhere_as_long_as_it_is_the_same(buckets: Buckets, s3: S3, tmp_path: Path):
    place = _place(s3, tmp_path)
    await buckets.write(place, _pieces(FILM), FIELD)
    await buckets.check_source(place, FIELD)
    source = BucketSource(buckets, place, FIELD)
    _, tag, whole = await _read(source)
    assert whole == FILM
    assert await _read(source, 1 << 20, tag) == (1 << 20, tag, FILM[1 << 20 :])
    client_of(s3).put_object(place.bucket, place.key, io.BytesIO(b"new"), 3)
    offset, new_tag, data = await _read(source, 1 << 20, tag)
    assert (offset, data) == (0, b"new")
    assert new_tag != tag


async def test_what_is_not_there_or_not_allowed_is_said_in_words(buckets: Buckets, s3: S3, tmp_path: Path):
    with pytest.raises(InvalidInput, match="There is no object s3://") as caught:
        await buckets.check_source(_place(s3, tmp_path, "none.mp4"), FIELD)
    assert caught.value.field == FIELD
    with contextlib.closing(Buckets(_settings(s3, tmp_path, secret="wrong"))) as refused:
        with pytest.raises(InvalidInput, match="refuses it"):
            await refused.check_result(_place(s3, tmp_path), FIELD)
        with pytest.raises(InvalidInput, match="refuses it"):
            await refused.write(_place(s3, tmp_path), _pieces(b"x"), FIELD)


async def test_the_check_of_a_result_leaves_nothing(buckets: Buckets, s3: S3, tmp_path: Path):
    await buckets.check_result(_place(s3, tmp_path), FIELD)
    assert not list(client_of(s3).list_objects(s3.bucket, prefix_of(tmp_path), recursive=True))


async def test_a_server_that_is_away_can_be_tried_again(s3: S3, tmp_path: Path, unused_tcp_port: int):
    settings = _settings(s3, tmp_path)
    away = BucketSettings(
        endpoint=f"http://127.0.0.1:{unused_tcp_port}", access_key_file=settings.access_key_file,
        secret_key_file=settings.secret_key_file, tries=1,
    )  # fmt: skip
    with contextlib.closing(Buckets(away)) as buckets, pytest.raises(Unavailable, match="can't be reached"):
        await buckets.check_source(_place(s3, tmp_path), FIELD)
