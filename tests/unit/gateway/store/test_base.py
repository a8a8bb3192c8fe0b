"""What every store does, in a directory and in a bucket."""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.errors import AlreadyExists, ChunkOutOfOrder, NotFound, WrongState
from services.gateway.store.base import Store
from tests.unit.gateway.store.conftest import Opener, pieces, read

MIB = 1 << 20


# ---- records ----


async def test_a_record_is_read_back_with_its_tag(store: Store):
    tag = await store.put("a/b.json", b"1")
    assert await store.get("a/b.json") == (b"1", tag)
    assert await store.size("a/b.json") == 1


async def test_a_record_is_replaced_without_a_condition(store: Store):
    first = await store.put("a/b.json", b"1")
    assert await store.put("a/b.json", b"22") != first
    assert (await store.get("a/b.json"))[0] == b"22"


async def test_a_record_is_created_once_by_whoever_comes_first(opened: Opener):
    stores = [opened(), opened()] * 8
    changes = [s.put("a/b", str(i).encode(), if_absent=True) for i, s in enumerate(stores)]
    results = await asyncio.gather(*changes, return_exceptions=True)
    assert sum(isinstance(r, AlreadyExists) for r in results) == 15
    winner = next(i for i, r in enumerate(results) if not isinstance(r, BaseException))
    assert (await stores[0].get("a/b"))[0] == str(winner).encode()


async def test_of_many_changes_to_one_state_one_wins(opened: Opener):
    stores = [opened(), opened()] * 8
    tag = await stores[0].put("a/b", b"old")
    changes = [s.put("a/b", str(i).encode(), if_match=tag) for i, s in enumerate(stores)]
    results = await asyncio.gather(*changes, return_exceptions=True)
    assert sum(isinstance(r, WrongState) for r in results) == 15
    winner = next(i for i, r in enumerate(results) if not isinstance(r, BaseException))
    assert await stores[0].get("a/b") == (str(winner).encode(), results[winner])


async def test_what_follows_a_prefix_is_told_once(store: Store):
    for key in ("a/b/1", "a/b/2", "a/c", "ab/d", "a/e-1/f"):
        await store.put(key, b"")
    await store.append("a/g/data", 0, b"abc")
    await store.settle("a/g/data")
    assert await store.names("a/") == ["b", "c", "e-1", "g"]
    assert await store.names("nothing/") == []


async def test_what_is_not_there_is_not_found(store: Store):
    for missing in (store.get("a"), store.size("a"), store.put("a", b"", if_match="x"), read(store, "a")):
        with pytest.raises(NotFound):
            await missing
    with pytest.raises(NotFound):
        async with store.local_path("a"):
            raise AssertionError
    await store.delete("a")


async def test_keys_are_listed_by_prefix(store: Store):
    for key in ("a/1/x", "a/2", "ab/3"):
        await store.put(key, b"")
    assert await store.keys("a/") == ["a/1/x", "a/2"]
    assert await store.keys("nothing/") == []
    await store.delete("a/1/x")
    assert await store.keys("a/") == ["a/2"]


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "a/.hidden", "a/b.part", "a\0b", ""])
async def test_no_key_leads_out_of_the_store(store: Store, key: str):
    with pytest.raises(ValueError, match="is not a key"):
        await store.put(key, b"")


# ---- artifacts ----


async def test_an_artifact_is_written_and_read_in_parts(store: Store):
    data = bytes(range(256)) * 9000
    assert await store.write("a", pieces(data[:100], data[100:])) == len(data)
    assert await read(store, "a") == data
    assert await read(store, "a", 1_500_000, 700) == data[1_500_000:1_500_700]
    assert await read(store, "a", 1_500_000) == data[1_500_000:]
    assert await read(store, "a", len(data)) == b""
    assert await read(store, "a", len(data) - 1, 5) == data[-1:]
    async with store.local_path("a") as path:
        assert path.read_bytes() == data


async def test_an_artifact_of_many_pieces_is_whole_and_replaces_another(store: Store):
    data = random.Random(1).randbytes(23 * MIB + 17)
    await store.write("a", pieces(b"old"))
    assert await store.write("a", pieces(*(data[i : i + MIB] for i in range(0, len(data), MIB)))) == len(data)
    assert await store.size("a") == len(data)
    async with store.local_path("a") as path:
        assert hashlib.sha256(path.read_bytes()).digest() == hashlib.sha256(data).digest()


async def test_an_artifact_of_nothing_is_empty(store: Store):
    assert await store.write("a", pieces()) == 0
    assert await read(store, "a") == b""


async def test_a_write_that_fails_leaves_what_was_there(store: Store):
    async def broken() -> AsyncIterator[bytes]:
        for _ in range(12):
            yield bytes(MIB)
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await store.write("new", broken())
    await store.write("old", pieces(b"old"))
    with pytest.raises(RuntimeError, match="broken"):
        await store.write("old", broken())
    assert await store.appended("new") == 0
    assert await read(store, "old") == b"old"


async def test_a_scratch_file_becomes_an_artifact_or_nothing(store: Store):
    paths: list[Path] = []
    for data in (b"video", bytes(6 * MIB)):
        async with store.scratch(".mp4") as path:
            path.write_bytes(data)
            await store.adopt("r.mp4", path)
            paths.append(path)
        assert await read(store, "r.mp4") == data
    async with store.scratch(".mp4") as path:
        path.write_bytes(b"half")
        paths.append(path)
    assert not any(path.exists() for path in paths)
    assert {path.suffix for path in paths} == {".mp4"}


async def test_a_file_is_of_the_newest_object(store: Store):
    for data in (b"one", b"three"):
        await store.write("a", pieces(data))
        async with store.local_path("a") as path:
            assert path.read_bytes() == data
    await store.delete("a")
    with pytest.raises(NotFound):
        async with store.local_path("a"):
            raise AssertionError


# ---- unfinished objects ----


async def test_bytes_are_appended_where_the_last_ones_ended(store: Store):
    assert await store.appended("u/data") == 0
    assert await store.append("u/data", 0, b"abc") == 3
    with pytest.raises(ChunkOutOfOrder):
        await store.append("u/data", 2, b"x")
    assert await store.append("u/data", 3, b"de") == 5
    await store.settle("u/data")
    assert await store.appended("u/data") == 5
    assert await store.keys("u/") == [], "unfinished objects are not listed"
    await store.finish("u/data")
    assert await read(store, "u/data") == b"abcde"
    assert await store.keys("u/") == ["u/data"]


@pytest.mark.parametrize("size", [3, 5 * MIB, 12 * MIB + 5])
async def test_what_was_settled_goes_on_in_another_process(opened: Opener, size: int):
    data = random.Random(size).randbytes(size)
    offset = 0
    while offset < size:
        store, begin = opened(), offset
        assert await store.appended("u/data") == begin
        while offset < min(size, begin + 4 * MIB + begin // 3):
            offset = await store.append("u/data", offset, data[offset : offset + MIB])
        await store.settle("u/data")
    last = opened()
    assert await last.appended("u/data") == size
    await last.finish("u/data")
    await last.finish("u/data")
    assert await read(opened(), "u/data") == data
    assert await last.appended("u/data") == size
    await last.delete("u/data")
    assert await last.appended("u/data") == 0


async def test_nothing_appended_is_finished_as_an_empty_object(store: Store):
    await store.finish("u/data")
    assert await read(store, "u/data") == b""
    await store.settle("u/data")
    assert await store.appended("u/data") == 0


@pytest.mark.parametrize("size", [3, 11 * MIB])
async def test_unfinished_bytes_are_deleted_with_their_object(store: Store, size: int):
    for offset in range(0, size, MIB):
        await store.append("u/data", offset, bytes(min(MIB, size - offset)))
    await store.settle("u/data")
    await store.delete("u/data")
    assert await store.appended("u/data") == 0
    assert await store.append("u/data", 0, b"new") == 3
    await store.finish("u/data")
    assert await read(store, "u/data") == b"new"


async def test_an_object_tells_when_it_was_written_last(store: Store):
    with pytest.raises(NotFound):
        await store.modified("u/data")
    # Servers count whole seconds, by their own clocks.
    before = time.time() - 5
    await store.append("u/data", 0, b"abc")
    assert before < await store.modified("u/data") < time.time() + 5
    await store.settle("u/data")
    appended = await store.modified("u/data")
    await store.finish("u/data")
    assert before < appended <= await store.modified("u/data")
    await store.put("u/data", b"x")
    assert await store.modified("u/data") >= appended


async def test_space_that_is_there_is_not_refused(store: Store):
    await store.require_space()
    await store.require_space(1)
