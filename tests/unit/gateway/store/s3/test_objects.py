import asyncio
import hashlib
import random
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import AlreadyExists, NotFound, StoreFull, StoreUnavailable, WrongState
from services.gateway.store.s3.faults import Damaged
from services.gateway.store.s3.objects import Head, check_hash
from services.gateway.store.s3.store import S3Store
from tests.fault_proxy import Fault
from tests.s3 import S3, client_of, prefix_of
from tests.unit.gateway.store.conftest import pieces, read
from tests.unit.gateway.store.s3.conftest import Behind

MIB = 1 << 20


# ---- conditions ----


async def test_a_condition_is_a_header_of_the_request(behind: Behind):
    objects = behind.objects()
    tag = await objects.put_if("a", b"1")
    await objects.put_if("a", b"2", tag=tag)
    sent = [r.headers for r in behind.proxy.requests if r.line.startswith("PUT")]
    assert [(h.get("if-none-match"), h.get("if-match")) for h in sent] == [("*", None), (None, f'"{tag}"')]
    assert not any(name.startswith("x-amz-meta-if") for h in sent for name in h)


@pytest.mark.parametrize("status", [None, 500, 503])
async def test_a_write_whose_answer_was_lost_is_found_to_be_done(behind: Behind, direct: S3Store, status: int | None):
    objects = behind.objects()
    lost = Fault(cut_answer_after=0, times=1, only="^PUT") if status is None else Fault(status=status, times=1, only="^PUT")
    behind.proxy.set(lost)
    created = await objects.put_if("a", b"1")
    assert await direct.get("a") == (b"1", created)
    behind.proxy.set(lost)
    changed = await objects.put_if("a", b"2", tag=created)
    assert await direct.get("a") == (b"2", changed)
    assert changed != created


async def test_a_write_whose_answer_was_lost_and_that_another_one_replaced_has_failed(behind: Behind, direct: S3Store):
    await direct.put("a", b"theirs")
    behind.proxy.set(Fault(cut_request_after=100, times=1, only="^PUT"))
    with pytest.raises(AlreadyExists):
        await behind.objects().put_if("a", b"ours")
    behind.proxy.set(Fault(cut_request_after=100, times=1, only="^PUT"))
    with pytest.raises(WrongState):
        await behind.objects().put_if("a", b"ours", tag="0" * 32)
    assert (await direct.get("a"))[0] == b"theirs"


# ---- what goes wrong on the way ----


@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=500, times=2),
        Fault(status=503, times=1),
        Fault(refuse=True, times=1),
        Fault(cut_answer_after=0, times=1),
        Fault(cut_answer_after=150, times=1),
        Fault(cut_request_after=50, times=1),
        Fault(delay_s=0.002),
    ],
    ids=["500", "503", "refused", "lost answer", "broken answer", "broken request", "slow"],
)
async def test_what_passes_is_not_noticed(behind: Behind, fault: Fault):
    store = behind.store()
    data = random.Random(1).randbytes(7 * MIB)
    steps = (
        lambda: store.put("a", b"1"),
        lambda: store.get("a"),
        lambda: store.keys("a/"),
        lambda: store.write("big", pieces(data)),
        lambda: read(store, "big"),
        lambda: store.delete("a"),
    )
    for step in steps:
        behind.proxy.set(fault)
        result = await step()
        assert result != b"" or step is steps[-1]
    assert await read(store, "big") == data


@pytest.mark.parametrize("fault", [Fault(status=503), Fault(refuse=True)], ids=["503", "refused"])
async def test_what_does_not_pass_is_told_after_so_many_tries(behind: Behind, fault: Fault):
    store = behind.store(tries=2)
    behind.proxy.set(fault)
    for call in (store.get("a"), store.put("a", b"1"), read(store, "a"), store.keys("a/"), store.delete("a"), store.size("a")):
        with pytest.raises(StoreUnavailable, match="doesn't answer as it should") as caught:
            await call
        assert caught.value.retry_after_s
    behind.proxy.set()
    await store.put("a", b"1")


async def test_a_server_that_is_silent_is_given_up(behind: Behind):
    store = behind.store(timeout_s=0.3, tries=2)
    behind.proxy.set(Fault(silent=True))
    with pytest.raises(StoreUnavailable):
        await store.get("a")


async def test_the_server_says_that_it_is_full(behind: Behind):
    store = behind.store()
    await store.put("record", b"1")
    behind.proxy.set(Fault(status=507, only="^PUT"))
    for call in (store.write("a", pieces(b"1")), store.put("a", b"1"), store.append("u", 0, bytes(6 * MIB))):
        with pytest.raises(StoreFull, match="object store is full"):
            await call
    with pytest.raises(StoreFull, match="object store is full"):
        await store.require_space()
    behind.proxy.set()
    assert (await store.get("record"))[0] == b"1"


async def test_the_loop_is_not_blocked_while_the_server_is_slow(behind: Behind):
    store = behind.store()
    behind.proxy.set(Fault(delay_s=0.2))
    slow, turns = asyncio.ensure_future(store.put("a", b"1")), 0
    while not slow.done():
        await asyncio.sleep(0.01)
        turns += 1
    assert turns >= 5


# ---- downloads ----

LARGE = 40 * MIB
"""More than a connection holds on its way: what breaks in its middle breaks after something has arrived."""


async def test_a_download_goes_on_where_it_broke(behind: Behind):
    store = behind.store()
    data = random.Random(2).randbytes(LARGE)
    await store.write("a", pieces(data))
    behind.proxy.requests.clear()
    behind.proxy.set(Fault(cut_answer_after=14 * MIB, times=2))
    assert await read(store, "a", 5) == data[5:]
    ranges = [r.headers["range"] for r in behind.proxy.requests]
    assert len(ranges) == 3
    assert ranges[0] == "bytes=5-"
    assert [int(r[6:-1]) for r in ranges] == sorted({int(r[6:-1]) for r in ranges})


async def test_a_download_never_mixes_two_versions(behind: Behind, direct: S3Store):
    store = behind.store()
    await store.write("a", pieces(bytes(LARGE)))
    behind.proxy.set(Fault(cut_answer_after=LARGE // 2, times=1))
    reading = store.read("a")
    await anext(reading)
    await direct.write("a", pieces(b"\1" * LARGE))
    with pytest.raises(WrongState, match="changed meanwhile"):
        async for _ in reading:
            pass


async def test_a_download_that_nobody_reads_on_holds_no_thread(behind: Behind):
    store = behind.store(connections=2)
    await store.write("a", pieces(bytes(8 * MIB)))
    slow = [store.read("a") for _ in range(6)]
    for each in slow:
        await anext(each)
    async with asyncio.timeout(20):
        await store.put("b", b"1")
        assert (await store.get("b"))[0] == b"1"
    for each in slow:
        await each.aclose()


# ---- integrity ----


async def test_a_small_object_that_was_damaged_is_not_handed_out(s3: S3, tmp_path: Path, s3_store: S3Store):
    await s3_store.put("a", b"right")
    client, name = client_of(s3), prefix_of(tmp_path) + "a"
    headers = {"x-amz-meta-sha256": hashlib.sha256(b"right").hexdigest()}
    client._put_object(s3.bucket, name, b"wrong", headers=dict(headers))
    with pytest.raises(StoreUnavailable, match="Damaged"):
        await s3_store.get("a")
    with pytest.raises(StoreUnavailable, match="Damaged"):
        async with s3_store.local_path("a"):
            raise AssertionError


def test_an_object_of_parts_has_no_hash_to_compare():
    head = Head(size=1, tag="t", modified=0.0, metadata={})
    check_hash(head, "0")
    with pytest.raises(Damaged):
        check_hash(replace(head, metadata={"sha256": "1"}), "0")


# ---- lists, prefixes ----


async def test_long_lists_come_page_by_page(s3_store: S3Store):
    names = [f"many/{number:05}" for number in range(2100)]
    await asyncio.gather(*(s3_store.objects.put(name, b"") for name in names))
    assert await s3_store.keys("many/") == names


async def test_installations_share_a_bucket_by_prefix(s3: S3, tmp_path: Path):
    stores = [S3Store(s3.settings(tmp_path, prefix=prefix_of(tmp_path) + name)) for name in ("one/", "two/")]
    await stores[0].put("a", b"1")
    assert await stores[1].keys("a/") == []
    with pytest.raises(NotFound):
        await stores[1].get("a")
    for store in stores:
        store.close()


# ---- encryption ----


@pytest.mark.parametrize(
    ("settings", "headers"),
    [
        ({}, {}),
        ({"encryption": "AES256"}, {"x-amz-server-side-encryption": "AES256"}),
        ({"encryption": "aws:kms"}, {"x-amz-server-side-encryption": "aws:kms"}),
        (
            {"encryption": "aws:kms", "kms_key": "k1"},
            {"x-amz-server-side-encryption": "aws:kms", "x-amz-server-side-encryption-aws-kms-key-id": "k1"},
        ),
    ],
)
async def test_every_object_is_written_with_the_encryption_that_is_set(behind: Behind, settings: dict, headers: dict):
    store = behind.store(**settings)
    # What is sent is looked at, not whether this server has keys.
    behind.proxy.set(Fault(status=403, only="PUT /[^?]*$|POST .*uploads"))
    for write in (
        store.put("a", b"1"),
        store.put("a", b"1", if_absent=True),
        store.put("a", b"1", if_match="x"),
        store.write("a", pieces(bytes(6 * MIB))),
        store.append("u", 0, bytes(6 * MIB)),
    ):
        with pytest.raises(StoreUnavailable, match="AccessDenied"):
            await write
    assert len(behind.proxy.requests) == 6
    for request in [r for r in behind.proxy.requests if r.line.startswith(("PUT", "POST"))]:
        sent = {name: value for name, value in request.headers.items() if "encryption" in name}
        assert sent == headers, request.line


async def test_an_encrypted_object_is_read_like_any_other(s3: S3, tmp_path: Path):
    data = random.Random(4).randbytes(11 * MIB)
    with closing(S3Store(s3.settings(tmp_path, encryption="AES256"))) as store:
        await store.write("a", pieces(data))
        await store.put("b", b"1", if_absent=True)
        assert await read(store, "a", 6 * MIB, 1000) == data[6 * MIB :][:1000]
        async with store.local_path("a") as path:
            assert path.read_bytes() == data
        for key in ("a", "b"):
            found = client_of(s3).stat_object(s3.bucket, prefix_of(tmp_path) + key)
            assert found.metadata
            assert found.metadata["x-amz-server-side-encryption"] == "AES256"
