import asyncio
import contextlib
import random
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import ChunkOutOfOrder, NotFound, StoreFull, StoreUnavailable
from services.gateway.store.base import Store
from services.gateway.store.s3.store import S3Store
from services.gateway.store.s3.unfinished import LEFTOVERS
from tests.fault_proxy import Fault
from tests.s3 import S3, client_of, prefix_of
from tests.unit.gateway.store.conftest import read
from tests.unit.gateway.store.s3.conftest import Behind

MIB = 1 << 20
DATA = random.Random(3).randbytes(24 * MIB)


async def append(store: Store, begin: int, end: int) -> None:
    for offset in range(begin, end, MIB):
        assert await store.append("u", offset, DATA[offset : min(end, offset + MIB)]) == min(end, offset + MIB)


def in_parts(s3: S3, directory: Path) -> int:
    """Multipart uploads that are begun and not ended."""
    return len(client_of(s3)._list_multipart_uploads(s3.bucket, prefix=prefix_of(directory)).uploads)


async def test_a_small_upload_is_one_object_and_no_parts(s3_store: S3Store, s3: S3, tmp_path: Path):
    await append(s3_store, 0, 3 * MIB)
    await s3_store.settle("u")
    assert in_parts(s3, tmp_path) == 0
    await s3_store.finish("u")
    assert await read(s3_store, "u") == DATA[: 3 * MIB]
    assert await s3_store.objects.keys(LEFTOVERS) == []


async def test_what_was_not_settled_goes_with_its_process(s3: S3, tmp_path: Path):
    first, second = S3Store(s3.settings(tmp_path)), S3Store(s3.settings(tmp_path))
    await append(first, 0, 7 * MIB)
    await first.settle("u")
    await append(first, 7 * MIB, 9 * MIB)
    assert await first.appended("u") == 9 * MIB
    first.close()
    assert await second.appended("u") == 7 * MIB
    await append(second, 7 * MIB, 8 * MIB)
    await second.finish("u")
    assert await read(second, "u") == DATA[: 8 * MIB]
    second.close()


async def test_of_two_processes_that_append_the_later_one_goes_on(s3: S3, tmp_path: Path):
    older, newer = S3Store(s3.settings(tmp_path)), S3Store(s3.settings(tmp_path))
    await append(older, 0, 7 * MIB)
    await older.settle("u")
    await append(older, 7 * MIB, 9 * MIB)
    await append(newer, 7 * MIB, 17 * MIB)
    with pytest.raises(ChunkOutOfOrder, match="Another stream"):
        await append(older, 9 * MIB, 20 * MIB)
    await append(newer, 17 * MIB, 24 * MIB)
    await newer.finish("u")
    assert await read(newer, "u") == DATA
    assert await older.appended("u") == len(DATA)
    older.close()
    newer.close()


@pytest.mark.parametrize("settled", [0, 1, 6])
async def test_two_processes_that_send_at_the_same_time_spoil_nothing(s3: S3, tmp_path: Path, settled: int):
    stores = [S3Store(s3.settings(tmp_path)) for _ in range(2)]
    await append(stores[0], 0, settled * MIB)
    await stores[0].settle("u")

    async def client(store: Store) -> None:
        """Appends, and asks where to go on after each refusal."""
        while (offset := await store.appended("u")) < len(DATA):
            with contextlib.suppress(ChunkOutOfOrder):
                await append(store, offset, min(offset + 7 * MIB, len(DATA)))
                await store.settle("u")

    await asyncio.gather(*(client(store) for store in stores))
    await stores[1].finish("u")
    assert await read(stores[0], "u") == DATA
    for store in stores:
        store.close()


async def test_settling_tells_that_another_process_went_on(s3: S3, tmp_path: Path):
    stores = [S3Store(s3.settings(tmp_path)) for _ in range(2)]
    for store in stores:
        await append(store, 0, MIB)
    await stores[0].settle("u")
    with pytest.raises(ChunkOutOfOrder, match="Another stream"):
        await stores[1].settle("u")
    assert await stores[1].append("u", MIB, b"x") == MIB + 1
    for store in stores:
        store.close()


async def test_a_finish_that_was_interrupted_after_the_object_was_made_is_finished_again(behind: Behind, direct: S3Store):
    store = behind.store(tries=1)
    await append(store, 0, 12 * MIB)
    await store.settle("u")
    behind.proxy.set(Fault(cut_answer_after=0, times=1, only="^POST .*uploadId"))
    with pytest.raises(StoreUnavailable):
        await store.finish("u")
    assert await direct.appended("u") == 12 * MIB
    await direct.finish("u")
    assert await read(direct, "u") == DATA[: 12 * MIB]
    assert await direct.objects.keys(LEFTOVERS) == []


@pytest.mark.parametrize("step", ["append", "finish"])
async def test_parts_that_a_rule_removed_make_the_upload_begin_again(s3_store: S3Store, s3: S3, tmp_path: Path, step: str):
    await append(s3_store, 0, 11 * MIB)
    await s3_store.settle("u")
    client = client_of(s3)
    for upload in client._list_multipart_uploads(s3.bucket, prefix=prefix_of(tmp_path)).uploads:
        client._abort_multipart_upload(s3.bucket, str(upload.object_name), str(upload.upload_id))
    with pytest.raises(ChunkOutOfOrder, match="begin from offset 0"):
        await (append(s3_store, 11 * MIB, 20 * MIB) if step == "append" else s3_store.finish("u"))
    assert await s3_store.appended("u") == 0
    await append(s3_store, 0, 12 * MIB)
    await s3_store.finish("u")
    assert await read(s3_store, "u") == DATA[: 12 * MIB]


async def test_a_first_part_that_fails_leaves_nothing_begun(behind: Behind, s3: S3, tmp_path: Path):
    store = behind.store(tries=1)
    behind.proxy.set(Fault(status=500, only="^PUT"))
    with pytest.raises(StoreUnavailable):
        await append(store, 0, 8 * MIB)
    assert in_parts(s3, tmp_path) == 0
    behind.proxy.set()
    assert await store.appended("u") == 4 * MIB
    await append(store, 4 * MIB, 8 * MIB)
    await store.finish("u")
    assert await read(store, "u") == DATA[: 8 * MIB]


async def test_a_record_whose_answer_was_lost_keeps_the_parts_that_it_names(behind: Behind, direct: S3Store):
    store = behind.store(tries=1)
    await append(store, 0, 3 * MIB)
    await store.settle("u")
    behind.proxy.set(Fault(cut_answer_after=0, times=1, only=r"^PUT .*/\.unfinished/"))
    with pytest.raises(StoreUnavailable):
        await append(store, 3 * MIB, 6 * MIB)
    assert await direct.appended("u") == 5 * MIB
    with contextlib.suppress(ChunkOutOfOrder):
        await store.settle("u")
    assert await store.appended("u") == 5 * MIB
    await append(store, 5 * MIB, 12 * MIB)
    await store.finish("u")
    assert await read(direct, "u") == DATA[: 12 * MIB]


async def test_a_wrong_offset_changes_nothing(s3_store: S3Store):
    await append(s3_store, 0, MIB)
    await s3_store.finish("u")
    with pytest.raises(ChunkOutOfOrder):
        await s3_store.append("u", 5, b"x")
    assert await s3_store.appended("u") == MIB


async def test_what_is_deleted_leaves_no_parts(s3_store: S3Store, s3: S3, tmp_path: Path):
    await append(s3_store, 0, 11 * MIB)
    await s3_store.settle("u")
    assert in_parts(s3, tmp_path) == 1
    await s3_store.delete("u")
    assert in_parts(s3, tmp_path) == 0
    assert await s3_store.objects.keys("") == []
    with pytest.raises(NotFound):
        await s3_store.modified("u")


async def test_a_stream_that_is_cut_in_the_middle_of_a_piece_keeps_its_offsets_true(s3_store: S3Store):
    data, offset = random.Random(7).randbytes(14 * MIB), 0
    for cut in range(14):
        piece = asyncio.ensure_future(s3_store.append("u/data", offset, data[offset : offset + MIB]))
        await asyncio.sleep(0.004 * (cut % 4))
        piece.cancel()
        await asyncio.wait({piece})
        await s3_store.settle("u/data")
        offset = await s3_store.appended("u/data")
    while offset < len(data):
        offset = await s3_store.append("u/data", offset, data[offset : offset + MIB])
    await s3_store.finish("u/data")
    assert await read(s3_store, "u/data") == data


@pytest.mark.parametrize("seed", range(4))
async def test_whatever_fails_what_was_settled_stays_and_the_bytes_are_right(behind: Behind, direct: S3Store, seed: int):
    chance, settled = random.Random(seed), 0
    faults = [
        Fault(), Fault(status=500, times=1), Fault(refuse=True, times=1), Fault(cut_answer_after=0, times=1),
        Fault(cut_request_after=300, times=1), Fault(status=507, times=1),
    ]  # fmt: skip
    stores = [behind.store(tries=tries) for tries in (1, 2, 1)]
    while settled < len(DATA):
        store, steps = chance.choice(stores), chance.randint(1, 9)
        with contextlib.suppress(StoreUnavailable, StoreFull, ChunkOutOfOrder):
            offset = await store.appended("u")
            assert offset >= settled
            for _ in range(steps):
                behind.proxy.set(
                    replace(chance.choice(faults), only=chance.choice(["^PUT", "^POST", "^GET", "partNumber", "unfin"]))
                )
                offset = await store.append("u", offset, DATA[offset : offset + chance.randint(1, MIB)])
            await store.settle("u")
            settled = offset
        with contextlib.suppress(StoreUnavailable, StoreFull, ChunkOutOfOrder):
            await store.settle("u")
        assert await direct.appended("u") >= settled
    for _ in range(50):
        behind.proxy.set(chance.choice(faults))
        with contextlib.suppress(StoreUnavailable, StoreFull, ChunkOutOfOrder):
            await chance.choice(stores).finish("u")
            break
    assert await read(direct, "u") == DATA
    assert await direct.objects.keys(LEFTOVERS) == []
