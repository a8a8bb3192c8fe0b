import errno
from pathlib import Path

import pytest

from services.common.errors import NotFound, StoreFull, StoreUnavailable
from services.gateway.store.threads import PIECE_BYTES, in_thread, pieces_of


@pytest.mark.parametrize(
    ("number", "error"), [(errno.ENOENT, NotFound), (errno.ENOSPC, StoreFull), (errno.EIO, StoreUnavailable)]
)
async def test_what_the_file_system_says_becomes_an_error_of_ours(number: int, error: type[Exception]):
    def call() -> None:
        raise OSError(number, "said")

    with pytest.raises(error):
        await in_thread(call)


async def test_a_file_comes_in_pieces(tmp_path: Path):
    data = bytes(range(256)) * 6000
    (tmp_path / "a").write_bytes(data)
    found = [piece async for piece in pieces_of(tmp_path / "a")]
    assert b"".join(found) == data
    assert [len(piece) for piece in found] == [PIECE_BYTES, len(data) - PIECE_BYTES]
    assert b"".join([piece async for piece in pieces_of(tmp_path / "a", 5, 7)]) == data[5:12]
