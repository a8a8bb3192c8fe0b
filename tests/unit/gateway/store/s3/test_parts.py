import tracemalloc
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.common.errors import StoreUnavailable, TooLarge
from services.gateway.store.s3.parts import in_parts, part_size
from services.gateway.store.s3.settings import SMALLEST_PART_BYTES
from services.gateway.store.s3.store import S3Store
from tests.fault_proxy import Fault
from tests.s3 import S3, client_of, prefix_of
from tests.unit.gateway.store.conftest import pieces, read
from tests.unit.gateway.store.s3.conftest import Behind

MIB, GIB = 1 << 20, 1 << 30


def test_the_largest_uploads_fit_and_their_parts_stay_small():
    size, number = 0, 0
    while size < 50 * GIB:
        number += 1
        size += part_size(number, SMALLEST_PART_BYTES)
    assert number < 6000
    assert part_size(number, SMALLEST_PART_BYTES) == 20 * MIB
    assert sum(part_size(n, SMALLEST_PART_BYTES) for n in range(1, 10_001)) > 300 * GIB
    with pytest.raises(TooLarge, match="SEEDVR2_S3_PART_BYTES"):
        part_size(10_001, SMALLEST_PART_BYTES)


@pytest.mark.parametrize("sizes", [[], [1], [10], [4, 4, 4], [25], [10, 10], [3] * 11])
async def test_pieces_become_parts_of_one_size_and_a_rest(sizes: list[int]):
    data = bytes(range(sum(sizes)))
    cut, offset = [], 0
    for size in sizes:
        cut.append(data[offset : offset + size])
        offset += size
    parts = [part async for part in in_parts(pieces(*cut), 10)]
    assert b"".join(parts) == data
    assert [len(part) for part in parts[:-1]] == [10] * (len(parts) - 1)
    assert len(parts) == max(1, -(-len(data) // 10))


async def test_an_artifact_that_fails_leaves_no_parts(behind: Behind, s3: S3, tmp_path: Path):
    store = behind.store(tries=1)
    behind.proxy.set(Fault(status=500, only="partNumber=2"))
    with pytest.raises(StoreUnavailable):
        await store.write("a", pieces(*[bytes(MIB)] * 12))
    assert not client_of(s3)._list_multipart_uploads(s3.bucket, prefix=prefix_of(tmp_path)).uploads
    assert await store.keys("a/") == []


async def test_a_lost_answer_to_the_last_word_is_found_to_be_done(behind: Behind):
    store = behind.store()
    behind.proxy.set(Fault(cut_answer_after=0, times=1, only="^POST .*uploadId"))
    assert await store.write("a", pieces(*[bytes(MIB)] * 12)) == 12 * MIB
    assert await read(store, "a") == bytes(12 * MIB)


async def test_large_objects_take_little_memory(s3_store: S3Store):
    async def generated() -> AsyncIterator[bytes]:
        for number in range(200):
            yield bytes([number]) * MIB

    tracemalloc.start()
    try:
        assert await s3_store.write("a", generated()) == 200 * MIB
        for number in range(60):
            await s3_store.append("u", number * MIB, bytes([number]) * MIB)
        await s3_store.finish("u")
        async with s3_store.local_path("a") as path, s3_store.scratch(".mp4") as copy:
            copy.hardlink_to(path)
            await s3_store.adopt("b", copy)
        peak_bytes = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert await s3_store.size("b") == 200 * MIB
    offset = 0
    async for piece in s3_store.read("b"):
        for number in range(offset // MIB, (offset + len(piece) - 1) // MIB + 1):
            part = piece[max(0, number * MIB - offset) : (number + 1) * MIB - offset]
            assert part.count(number) == len(part)
        offset += len(piece)
    assert offset == 200 * MIB
    assert peak_bytes < 40 * MIB
