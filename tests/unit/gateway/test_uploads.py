import hashlib
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import (
    AlreadyExists,
    ChunkOutOfOrder,
    InvalidInput,
    InvalidOption,
    ServiceError,
    StoreFull,
    TooLarge,
    UploadNotFound,
    WrongState,
)
from services.common.metrics import GatewayMetrics
from services.gateway.keys import Ref
from services.gateway.store.base import Store
from services.gateway.store.local import LocalStore
from services.gateway.store.s3.store import S3Store
from services.gateway.uploads import Finish, Uploads
from tests.s3 import S3
from tests.unit.gateway.examples import ref

DATA = bytes(range(256)) * 8
SHA256 = hashlib.sha256(DATA).hexdigest()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path, min_free_bytes=0)
    yield store
    store.close()


@pytest.fixture
def uploads(store: LocalStore) -> Uploads:
    return make(store)


def make(store: Store, *users: str) -> Uploads:
    async def found(upload: Ref) -> Sequence[str]:
        return users

    return Uploads(store, GatewayMetrics(CollectorRegistry()), max_bytes=4096, users=found)


async def messages(*pieces: bytes | Finish | Exception) -> AsyncIterator[bytes | Finish]:
    for piece in pieces:
        if isinstance(piece, Exception):
            raise piece
        yield piece


async def test_an_upload_is_complete_when_it_is_finished(uploads: Uploads):
    await uploads.create(ref("u"), "a.mp4", len(DATA))
    done = await uploads.write(ref("u"), 0, messages(DATA[:1000], DATA[1000:], Finish(sha256=SHA256.upper())))
    assert (done.complete, done.sha256, done.received_bytes, done.size_bytes) == (True, SHA256, len(DATA), len(DATA))
    assert await uploads.get(ref("u")) == done


async def test_a_stream_that_breaks_keeps_what_came(uploads: Uploads):
    await uploads.create(ref("u"), "a.mp4", 0)
    with pytest.raises(ConnectionError):
        await uploads.write(ref("u"), 0, messages(DATA[:1000], ConnectionError()))
    assert (await uploads.get(ref("u"))).received_bytes == 1000
    done = await uploads.write(ref("u"), 1000, messages(DATA[1000:], Finish(sha256=SHA256)))
    assert done.complete


async def test_an_upload_goes_on_in_another_process(store: LocalStore, uploads: Uploads):
    await uploads.create(ref("u"), "a.mp4", 0)
    await uploads.write(ref("u"), 0, messages(DATA[:1000]))
    done = await make(store).write(ref("u"), 1000, messages(DATA[1000:], Finish(sha256=SHA256)))
    assert done.sha256 == SHA256


async def test_an_upload_whose_finish_was_interrupted_can_be_finished(store: LocalStore, uploads: Uploads):
    await uploads.create(ref("u"), "a.mp4", 0)
    await uploads.write(ref("u"), 0, messages(DATA))
    await store.finish("owners/local/uploads/u/data")
    found = await make(store).get(ref("u"))
    assert (found.complete, found.received_bytes) == (False, len(DATA))
    assert (await make(store).write(ref("u"), len(DATA), messages(Finish(sha256=SHA256)))).complete


@pytest.mark.parametrize("offset", [0, 999, 1001])
async def test_a_wrong_offset_says_the_right_one(uploads: Uploads, offset: int):
    await uploads.create(ref("u"), "a.mp4", 0)
    await uploads.write(ref("u"), 0, messages(DATA[:1000]))
    with pytest.raises(ChunkOutOfOrder, match="go on from offset 1000"):
        await uploads.write(ref("u"), offset, messages(DATA))


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        ((DATA[:1000], Finish(sha256="00")), InvalidInput),
        ((DATA[:1000], Finish(sha256="")), InvalidInput),
        ((DATA[:1000], DATA), InvalidInput),
    ],
)
async def test_a_check_that_fails_leaves_the_upload_as_it_was(uploads: Uploads, sent: tuple, error: type[ServiceError]):
    await uploads.create(ref("u"), "a.mp4", len(DATA))
    with pytest.raises(error):
        await uploads.write(ref("u"), 0, messages(*sent))
    assert (await uploads.get(ref("u"))).received_bytes == 1000
    assert (await uploads.write(ref("u"), 1000, messages(DATA[1000:], Finish(sha256=SHA256)))).complete


async def test_more_than_the_limit_is_refused_when_declared_and_when_sent(uploads: Uploads):
    with pytest.raises(TooLarge, match="at most 4096 bytes"):
        await uploads.create(ref("u"), "a.mp4", 5000)
    await uploads.create(ref("u"), "a.mp4", 0)
    with pytest.raises(TooLarge, match="at most 4096 bytes"):
        await uploads.write(ref("u"), 0, messages(DATA, DATA, b"x"))
    assert (await uploads.get(ref("u"))).received_bytes == 4096


async def test_a_known_id_with_equal_values_is_the_same_upload(uploads: Uploads):
    first = await uploads.create(ref("u"), "a.mp4", 5)
    assert await uploads.create(ref("u"), "a.mp4", 5) == first
    with pytest.raises(AlreadyExists):
        await uploads.create(ref("u"), "b.mp4", 5)


async def test_the_latest_stream_goes_on_and_an_older_one_ends(uploads: Uploads):
    await uploads.create(ref("u"), "a.mp4", 0)

    async def older() -> AsyncIterator[bytes | Finish]:
        yield DATA[:1000]
        await uploads.write(ref("u"), 1000, messages(DATA[1000:1500]))
        yield DATA[1000:]

    with pytest.raises(WrongState, match="Another stream"):
        await uploads.write(ref("u"), 0, older())
    assert (await uploads.get(ref("u"))).received_bytes == 1500


async def test_a_complete_upload_takes_no_more(uploads: Uploads):
    await uploads.create(ref("u"), "a.mp4", 0)
    await uploads.write(ref("u"), 0, messages(DATA, Finish(sha256="")))
    with pytest.raises(WrongState, match="is complete"):
        await uploads.write(ref("u"), len(DATA), messages(DATA))


async def test_an_upload_is_deleted_whole(uploads: Uploads, store: LocalStore):
    await uploads.create(ref("u"), "a.mp4", 0)
    await uploads.write(ref("u"), 0, messages(DATA))
    await uploads.delete(ref("u"))
    with pytest.raises(UploadNotFound):
        await uploads.get(ref("u"))
    assert await store.appended("owners/local/uploads/u/data") == 0


async def test_a_stream_can_not_bring_a_deleted_upload_back(uploads: Uploads, store: LocalStore):
    await uploads.create(ref("u"), "a.mp4", 0)

    async def slow() -> AsyncIterator[bytes | Finish]:
        yield DATA[:10]
        await uploads.delete(ref("u"))
        yield DATA[10:]

    with pytest.raises(WrongState):
        await uploads.write(ref("u"), 0, slow())
    assert await store.appended("owners/local/uploads/u/data") == 0


async def test_an_upload_that_a_job_needs_stays(store: LocalStore):
    uploads = make(store, "job-1")
    await uploads.create(ref("u"), "a.mp4", 0)
    with pytest.raises(WrongState, match="job-1 still needs"):
        await uploads.delete(ref("u"))


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (("U", "a", 0), "upload_id"),
        (("u", "a/b", 0), "filename"),
        (("u", "a" * 256, 0), "filename"),
        (("u", "a", -1), "size_bytes"),
    ],
)
async def test_a_wrong_value_is_refused_by_its_field(uploads: Uploads, values: tuple[str, str, int], field: str):
    with pytest.raises(InvalidOption) as error:
        await uploads.create(ref(values[0]), *values[1:])
    assert error.value.field == field


async def test_a_full_store_refuses_uploads_and_keeps_what_is_there(tmp_path: Path, uploads: Uploads):
    await uploads.create(ref("u"), "a.mp4", 0)
    await uploads.write(ref("u"), 0, messages(DATA[:1000]))
    full_store = LocalStore(tmp_path, min_free_bytes=1 << 60)
    full = make(full_store)
    with pytest.raises(StoreFull):
        await full.create(ref("v"), "a.mp4", 0)
    with pytest.raises(StoreFull):
        await full.write(ref("u"), 1000, messages(DATA[1000:]))
    assert (await full.get(ref("u"))).received_bytes == 1000
    with pytest.raises(UploadNotFound):
        await full.get(ref("v"))
    full_store.close()


async def test_bytes_that_the_store_lost_do_not_count_in_the_hash(s3: S3, tmp_path: Path):
    with closing(S3Store(s3.settings(tmp_path))) as one, closing(S3Store(s3.settings(tmp_path))) as two:
        first, second = make(one), make(two)
        await first.create(ref("u"), "a.mp4", 0)

        async def overtaken() -> AsyncIterator[bytes | Finish]:
            yield b"a" * 1000
            await second.write(ref("u"), 0, messages(b"b" * 1000))

        with pytest.raises(ChunkOutOfOrder, match="Another stream"):
            await first.write(ref("u"), 0, overtaken())
        done = await first.write(ref("u"), 1000, messages(b"c", Finish(sha256="")))
        assert done.sha256 == hashlib.sha256(b"b" * 1000 + b"c").hexdigest()


async def test_an_upload_that_a_job_begins_to_need_while_it_is_deleted_stays_as_it_was(store: LocalStore):
    looks = iter([(), ("a",)])

    async def found(upload: Ref) -> Sequence[str]:
        return next(looks)

    uploads = Uploads(store, GatewayMetrics(CollectorRegistry()), max_bytes=4096, users=found)
    await uploads.create(ref("u"), "a.mp4", 0)
    before = await uploads.write(ref("u"), 0, messages(DATA, Finish(sha256="")))
    with pytest.raises(WrongState, match="job a still needs"):
        await uploads.delete(ref("u"))
    assert await uploads.get(ref("u")) == before
    assert b"".join([piece async for piece in store.read("owners/local/uploads/u/data")]) == DATA
