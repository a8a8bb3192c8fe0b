import asyncio
import itertools
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from services.common.errors import StoreUnavailable, TooLarge
from services.gateway.store.cache import FileCache

LARGE = 100 << 20


class Copies:
    """A cache of 250 MiB, and how often each copy was made; the files themselves are tiny."""

    def __init__(self, directory: Path, *, patience_s: float = 0.05) -> None:
        numbers = itertools.count()
        self.directory = directory
        self.made: list[str] = []
        self.hold: asyncio.Event | None = None
        self.cache = FileCache(lambda: directory / str(next(numbers)), max_bytes=250 << 20, patience_s=patience_s)

    def file(self, name: str, size: int = LARGE):
        return self.cache.file(name, size, lambda path: self._make(name, path))

    async def use(self, name: str, size: int = LARGE) -> str:
        async with self.file(name, size) as path:
            return path.read_text()

    async def _make(self, name: str, path: Path) -> None:
        self.made.append(name)
        path.write_text("half")
        if self.hold is not None:
            await self.hold.wait()
        path.write_text(name)


async def test_a_copy_is_made_once_and_read_by_many(tmp_path: Path):
    copies = Copies(tmp_path)
    assert await asyncio.gather(*(copies.use("a") for _ in range(5))) == ["a"] * 5
    assert await copies.use("a") == "a"
    assert copies.made == ["a"]


async def test_the_one_that_was_used_longest_ago_goes_first(tmp_path: Path):
    copies = Copies(tmp_path)
    for name in ("a", "b", "a", "c", "a", "b"):
        assert await copies.use(name) == name
    assert copies.made == ["a", "b", "c", "b"]
    assert len(list(tmp_path.iterdir())) == 2


async def test_a_copy_in_use_stays(tmp_path: Path):
    copies = Copies(tmp_path)
    async with copies.file("a") as path:
        for name in ("b", "c", "d"):
            await copies.use(name)
        assert path.read_text() == "a"
    assert copies.made == ["a", "b", "c", "d"]


async def test_who_needs_room_waits_until_a_copy_is_not_used_any_more(tmp_path: Path):
    copies = Copies(tmp_path, patience_s=20)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(copies.file("a"))
        await stack.enter_async_context(copies.file("b"))
        waiting = asyncio.ensure_future(copies.use("c"))
        await asyncio.sleep(0.05)
        assert not waiting.done()
    assert await waiting == "c"


async def test_who_waits_too_long_is_told_and_small_files_need_not_wait(tmp_path: Path):
    copies = Copies(tmp_path)
    async with copies.file("a"), copies.file("b"):
        with pytest.raises(StoreUnavailable, match="SEEDVR2_S3_CACHE_BYTES"):
            await copies.use("c")
        assert await copies.use("small", 60 << 20) == "small"


async def test_what_is_larger_than_the_cache_is_refused(tmp_path: Path):
    with pytest.raises(TooLarge, match="SEEDVR2_S3_CACHE_BYTES"):
        await Copies(tmp_path).use("a", 251 << 20)


async def test_a_copy_that_fails_leaves_nothing_and_can_be_made_again(tmp_path: Path):
    copies = Copies(tmp_path)

    async def broken(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("broken")

    for _ in range(3):
        with pytest.raises(RuntimeError, match="broken"):
            async with copies.cache.file("a", LARGE, broken):
                raise AssertionError
    assert not list(tmp_path.iterdir())
    assert await copies.use("a") == "a"


async def test_when_the_one_who_fetches_goes_away_the_next_one_does(tmp_path: Path):
    copies = Copies(tmp_path)
    copies.hold = asyncio.Event()
    first, second = asyncio.ensure_future(copies.use("a")), asyncio.ensure_future(copies.use("a"))
    await asyncio.sleep(0.02)
    first.cancel()
    await asyncio.wait({first})
    copies.hold.set()
    assert await second == "a"
    assert copies.made == ["a", "a"]
