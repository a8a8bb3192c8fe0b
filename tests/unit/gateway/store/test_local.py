import asyncio
import contextlib
import resource
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.common.errors import (
    SettingsError,
    StoreFull,
    StoreUnavailable,
)
from services.gateway.store.local import LocalStore
from tests.unit.gateway.store.conftest import pieces, read

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


def files(root: Path) -> list[str]:
    return sorted(str(p.relative_to(root)) for p in root.rglob("*") if p.is_file() and p.name != "lock")


async def test_deleting_leaves_no_empty_directory(store: LocalStore, tmp_path: Path):
    await store.put("a/b/c", b"")
    await store.put("a/d", b"")
    await store.delete("a/b/c")
    assert not (tmp_path / "s/a/b").exists()
    await store.delete("a/d")
    assert not (tmp_path / "s/a").exists()


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


async def test_a_file_that_can_not_be_closed_for_want_of_space_says_so(tmp_path: Path):
    limits, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)

    with contextlib.closing(LocalStore(tmp_path / "store", min_free_bytes=0)) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4000, limits[1]))
        try:
            with pytest.raises(StoreFull):
                await store.write("a", pieces(b"1" * 3000, b"2" * 3000))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            signal.signal(signal.SIGXFSZ, ignored)
