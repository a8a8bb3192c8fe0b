import asyncio
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.common.errors import (
    AlreadyExists,
    ChunkOutOfOrder,
    NotFound,
    SettingsError,
    StoreFull,
    StoreUnavailable,
    WrongState,
)
from services.gateway.store.local import LocalStore

_WRITER = """
import asyncio, pathlib, sys
from services.gateway.store.local import LocalStore

async def pieces():
    yield b"x" * 1000
    print("written", flush=True)
    await asyncio.Event().wait()

store = LocalStore(pathlib.Path(sys.argv[1]), min_free_bytes=0)
asyncio.run(store.write("a/b", pieces()))
"""


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path / "s", min_free_bytes=0)
    yield store
    store.close()


async def pieces(*data: bytes) -> AsyncIterator[bytes]:
    for piece in data:
        yield piece


async def read(store: LocalStore, key: str, offset: int = 0, length: int | None = None) -> bytes:
    return b"".join([piece async for piece in store.read(key, offset, length)])


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != "lock")


async def test_a_record_is_read_back_with_its_tag(store: LocalStore):
    tag = await store.put("a/b.json", b"1")
    assert await store.get("a/b.json") == (b"1", tag)
    assert await store.size("a/b.json") == 1


async def test_a_record_is_created_once_by_whoever_comes_first(store: LocalStore):
    results = await asyncio.gather(
        *(store.put("a/b", str(i).encode(), if_absent=True) for i in range(20)), return_exceptions=True
    )
    assert sum(isinstance(r, AlreadyExists) for r in results) == 19
    winner = next(i for i, r in enumerate(results) if not isinstance(r, BaseException))
    assert (await store.get("a/b"))[0] == str(winner).encode()


async def test_of_many_changes_to_one_state_one_wins(store: LocalStore, tmp_path: Path):
    tag = await store.put("a/b", b"old")
    other = LocalStore(tmp_path / "s", min_free_bytes=0)
    changes = [s.put("a/b", str(i).encode(), if_match=tag) for i, s in enumerate([store, other] * 10)]
    results = await asyncio.gather(*changes, return_exceptions=True)
    assert sum(isinstance(r, WrongState) for r in results) == 19
    other.close()


async def test_what_is_not_there_is_not_found(store: LocalStore):
    for missing in (store.get("a"), store.size("a"), store.put("a", b"", if_match="x"), read(store, "a")):
        with pytest.raises(NotFound):
            await missing
    await store.delete("a")


async def test_keys_are_listed_by_prefix(store: LocalStore):
    for key in ("a/1/x", "a/2", "ab/3"):
        await store.put(key, b"")
    assert await store.keys("a/") == ["a/1/x", "a/2"]
    assert await store.keys("nothing/") == []


async def test_deleting_leaves_no_empty_directory(store: LocalStore, tmp_path: Path):
    await store.put("a/b/c", b"")
    await store.put("a/d", b"")
    await store.delete("a/b/c")
    assert not (tmp_path / "s/a/b").exists()
    await store.delete("a/d")
    assert not (tmp_path / "s/a").exists()


@pytest.mark.parametrize("key", ["../x", "a/../../x", "/etc/passwd", "a//b", "a/.hidden", "a/b.part", "a\0b", ""])
async def test_no_key_leads_out_of_the_store(store: LocalStore, key: str):
    with pytest.raises(ValueError, match="is not a key"):
        await store.put(key, b"")


async def test_an_artifact_is_written_and_read_in_parts(store: LocalStore):
    data = bytes(range(256)) * 9000
    assert await store.write("a", pieces(data[:100], data[100:])) == len(data)
    assert await read(store, "a") == data
    assert await read(store, "a", 1_500_000, 700) == data[1_500_000:1_500_700]
    assert await read(store, "a", len(data)) == b""
    async with store.local_path("a") as path:
        assert path.read_bytes() == data


async def test_a_write_that_fails_leaves_nothing(store: LocalStore, tmp_path: Path):
    async def broken() -> AsyncIterator[bytes]:
        yield b"x"
        raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        await store.write("a", broken())
    assert files(tmp_path / "s") == []


async def test_a_scratch_file_becomes_an_artifact_or_nothing(store: LocalStore, tmp_path: Path):
    async with store.scratch(".mp4") as path:
        path.write_bytes(b"video")
        await store.adopt("r.mp4", path)
    async with store.scratch(".mp4") as path:
        path.write_bytes(b"half")
    assert files(tmp_path / "s") == ["r.mp4"]


async def test_a_writer_that_is_killed_leaves_nothing_that_counts(tmp_path: Path):
    root = tmp_path / "s"
    writer = await asyncio.create_subprocess_exec(sys.executable, "-c", _WRITER, str(root), stdout=asyncio.subprocess.PIPE)
    assert writer.stdout is not None
    assert await writer.stdout.readline() == b"written\n"
    living = LocalStore(root, min_free_bytes=0)
    assert len(files(root)) == 1, "the draft of a living process stays"
    writer.send_signal(signal.SIGKILL)
    await writer.wait()
    assert await living.keys("a/") == []
    again = LocalStore(root, min_free_bytes=0)
    assert files(root) == [], "the draft of a dead process is removed"
    await again.write("a/b", pieces(b"new"))
    assert await read(again, "a/b") == b"new"
    again.close()
    living.close()


async def test_bytes_are_appended_where_the_last_ones_ended(store: LocalStore):
    assert await store.appended("u/data") == 0
    assert await store.append("u/data", 0, b"abc") == 3
    with pytest.raises(ChunkOutOfOrder):
        await store.append("u/data", 2, b"x")
    assert await store.append("u/data", 3, b"de") == 5
    await store.settle("u/data")
    assert await store.keys("u/") == [], "unfinished objects are not listed"
    assert b"".join([p async for p in store.read_appended("u/data")]) == b"abcde"


async def test_what_was_appended_survives_a_restart_and_is_finished(store: LocalStore, tmp_path: Path):
    await store.append("u/data", 0, b"abc")
    store.close()
    again = LocalStore(tmp_path / "s", min_free_bytes=0)
    assert await again.appended("u/data") == 3
    await again.finish("u/data")
    await again.finish("u/data")
    assert await read(again, "u/data") == b"abc"
    assert await again.appended("u/data") == 3
    await again.delete("u/data")
    assert await again.appended("u/data") == 0
    again.close()


async def test_nothing_appended_is_finished_as_an_empty_object(store: LocalStore):
    await store.finish("u/data")
    assert await read(store, "u/data") == b""


async def test_unfinished_bytes_are_deleted_with_their_object(store: LocalStore, tmp_path: Path):
    await store.append("u/data", 0, b"abc")
    await store.delete("u/data")
    assert files(tmp_path / "s") == []


async def test_artifacts_leave_the_reserve_and_records_may_use_it(tmp_path: Path):
    store = LocalStore(tmp_path, min_free_bytes=1 << 60)
    scratch = store.scratch("").__aenter__()
    for refused in (store.write("a", pieces(b"x")), store.append("a", 0, b"x"), store.require_space(), scratch):
        with pytest.raises(StoreFull, match="delete jobs or uploads"):
            await refused
    await store.put("state.json", b"{}")
    assert await store.keys("a/") == []
    store.close()


async def test_a_size_that_does_not_fit_is_refused_before_it_comes(store: LocalStore):
    await store.require_space(1)
    with pytest.raises(StoreFull):
        await store.require_space(1 << 62)


async def test_a_file_where_a_directory_should_be_is_an_unavailable_store(store: LocalStore):
    await store.put("a", b"")
    with pytest.raises(StoreUnavailable):
        await store.put("a/b", b"")


def test_a_place_that_can_not_be_written_is_said_at_the_start(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(SettingsError, match="choose another directory"):
        LocalStore(tmp_path / "file/store", min_free_bytes=0)


async def test_an_object_tells_when_it_was_written_last(store: LocalStore):
    with pytest.raises(NotFound):
        await store.modified("u/data")
    before = time.time() - 2
    await store.append("u/data", 0, b"abc")
    appended = await store.modified("u/data")
    await store.finish("u/data")
    assert before < appended <= await store.modified("u/data")
    await store.put("u/data", b"x")
    assert await store.modified("u/data") >= appended
