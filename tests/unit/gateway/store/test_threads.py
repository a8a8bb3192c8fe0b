import asyncio
import errno
import os
from pathlib import Path

import pytest

from services.common.errors import NotFound, StoreFull, StoreUnavailable
from services.gateway.store.threads import PIECE_BYTES, in_thread, opened, pieces_of


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOENT, NotFound), (errno.ENOSPC, StoreFull), (errno.EIO, StoreUnavailable)]
)
async def test_what_the_file_system_says_becomes_an_error_of_ours(number: int, error: type[Exception]):
    def call() -> None:
        raise OSError(number, "said")

    with pytest.raises(error):
        await in_thread(call)


async def test_a_file_is_closed_at_the_end_of_the_block(tmp_path: Path):
    async with opened(tmp_path / "a", "xb") as file:
        file.write(b"abc")
    assert file.closed
    assert (tmp_path / "a").read_bytes() == b"abc"


async def test_who_goes_away_while_a_file_is_opened_leaves_none_open(tmp_path: Path):
    # Opened for writing only once somebody reads it.
    os.mkfifo(tmp_path / "a")

    async def write() -> None:
        async with opened(tmp_path / "a", "wb"):
            pytest.fail("it was cancelled")

    writing = asyncio.create_task(write())
    await asyncio.sleep(0.05)
    writing.cancel()
    with (tmp_path / "a").open("rb") as reader:
        with pytest.raises(asyncio.CancelledError):
            await writing
        assert await asyncio.to_thread(reader.read) == b"", "nobody has it open for writing"


async def test_who_goes_away_while_a_file_that_is_missing_is_opened_hears_nothing_of_it(tmp_path: Path):
    async def read() -> None:
        async with opened(tmp_path / "a", "rb"):
            pytest.fail("there is none")

    reading = asyncio.create_task(read())
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading


async def test_a_file_comes_in_pieces(tmp_path: Path):
    data = bytes(range(256)) * 6000
    (tmp_path / "a").write_bytes(data)
    found = [piece async for piece in pieces_of(tmp_path / "a")]
    assert b"".join(found) == data
    assert [len(piece) for piece in found] == [PIECE_BYTES, len(data) - PIECE_BYTES]
    assert b"".join([piece async for piece in pieces_of(tmp_path / "a", 5, 7)]) == data[5:12]
