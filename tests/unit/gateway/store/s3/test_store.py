import asyncio
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from services.common.errors import SettingsError, StoreFull, TooLarge
from services.gateway.store.s3.store import S3Store
from tests.fault_proxy import Fault
from tests.s3 import S3
from tests.unit.gateway.store.conftest import pieces
from tests.unit.gateway.store.s3.conftest import Behind

MIB = 1 << 20


# ---- links ----


async def link(store: S3Store, seconds: int = 60) -> str:
    found = await store.link("a", seconds=seconds, filename='ä "b"\n.mp4', media_type="video/mp4")
    assert found
    return found


async def test_a_link_gives_the_object_or_a_range_of_it_to_anybody(s3_store: S3Store):
    await s3_store.write("a", pieces(b"0123456789"))
    async with httpx.AsyncClient() as web:
        whole = await web.get(await link(s3_store))
        part = await web.get(await link(s3_store), headers={"Range": "bytes=2-4"})
    assert (whole.status_code, whole.content, whole.headers["content-type"]) == (200, b"0123456789", "video/mp4")
    assert whole.headers["content-disposition"] == "attachment; filename*=UTF-8''%C3%A4%20%22b%22%0A.mp4"
    assert (part.status_code, part.content) == (206, b"234")


async def test_a_link_ends_and_holds_for_its_object_only(s3_store: S3Store):
    await s3_store.write("a", pieces(b"1"))
    await s3_store.write("b", pieces(b"2"))
    async with httpx.AsyncClient() as web:
        assert (await web.get((await link(s3_store)).replace("/a?", "/b?"))).status_code == 403
        assert (await web.put(await link(s3_store), content=b"x")).status_code == 403
        short = await link(s3_store, seconds=1)
        async with asyncio.timeout(30):
            while (await web.get(short)).status_code != 403:
                await asyncio.sleep(0.2)


async def test_links_name_the_address_that_users_reach(behind: Behind, s3: S3, tmp_path: Path):
    with closing(S3Store(s3.settings(tmp_path, public_endpoint=behind.s3.endpoint))) as store:
        await store.write("a", pieces(b"1"))
        assert not behind.proxy.requests
        found = await link(store)
        assert urlsplit(found).netloc == behind.proxy.address
        async with httpx.AsyncClient() as web:
            assert (await web.get(found)).content == b"1"


@pytest.mark.parametrize("seconds", [0, 604801])
async def test_a_link_holds_for_a_second_to_a_week(s3_store: S3Store, seconds: int):
    with pytest.raises(ValueError, match="seconds"):
        await link(s3_store, seconds)


# ---- local copies ----


async def test_an_object_is_fetched_once_however_many_read_it(behind: Behind):
    store = behind.store()
    await store.write("a", pieces(bytes(3 * MIB)))
    behind.proxy.requests.clear()

    async def use() -> int:
        async with store.local_path("a") as path:
            return path.stat().st_size

    assert set(await asyncio.gather(*(use() for _ in range(8)))) == {3 * MIB}
    assert await use() == 3 * MIB
    assert [r.line.partition(" ")[0] for r in behind.proxy.requests].count("GET") == 1


async def test_an_object_that_is_larger_than_all_copies_may_be_is_refused(s3: S3, tmp_path: Path):
    with closing(S3Store(s3.settings(tmp_path, cache_bytes=MIB))) as store:
        await store.write("a", pieces(bytes(MIB + 1)))
        with pytest.raises(TooLarge, match="SEEDVR2_S3_CACHE_BYTES"):
            async with store.local_path("a"):
                raise AssertionError


async def test_a_fetch_that_fails_leaves_no_file(behind: Behind, tmp_path: Path):
    store = behind.store(tries=1)
    await store.write("a", pieces(bytes(6 * MIB)))
    behind.proxy.set(Fault(cut_answer_after=MIB, only="^GET"))
    with pytest.raises(Exception, match="doesn't answer as it should"):
        async with store.local_path("a"):
            raise AssertionError
    behind.proxy.set()
    assert left(tmp_path) == []
    async with store.local_path("a") as path:
        assert left(tmp_path) == [path]
    store.close()
    assert left(tmp_path) == []


def left(directory: Path) -> list[Path]:
    return [path for path in (directory / "scratch").rglob("*") if path.is_file() and path.name != "lock"]


async def test_a_full_scratch_disk_is_said_and_records_are_still_written(s3: S3, tmp_path: Path):
    with closing(S3Store(s3.settings(tmp_path), min_free_bytes=1 << 60)) as store:
        await store.put("a", b"1")
        for refused in (store.require_space(), store.scratch("").__aenter__(), store.local_path("a").__aenter__()):
            with pytest.raises(StoreFull, match="scratch disk is full"):
                await refused


def test_a_scratch_directory_that_can_not_be_written_is_said_at_the_start(s3: S3, tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="Can't keep scratch files"):
        S3Store(s3.settings(tmp_path, scratch_directory=str(tmp_path / "file/x")))


@pytest.fixture
def two(s3: S3, tmp_path: Path) -> Iterator[tuple[S3Store, S3Store]]:
    stores = S3Store(s3.settings(tmp_path)), S3Store(s3.settings(tmp_path))
    yield stores
    for store in stores:
        store.close()


async def test_processes_share_a_scratch_directory_and_each_removes_its_own(two: tuple[S3Store, S3Store], tmp_path: Path):
    await two[0].write("a", pieces(b"1"))
    for store in two:
        async with store.local_path("a"):
            pass
    assert len(left(tmp_path)) == 2
    two[0].close()
    async with two[1].local_path("a") as path:
        assert path.read_bytes() == b"1"
    assert len(left(tmp_path)) == 1
