import asyncio
import logging
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import InvalidOption, StoreUnavailable
from services.gateway.identity import usage
from services.gateway.identity.caller import owner_of
from services.gateway.identity.usage import DeviceTime, Usage, UsageBook, checked_month, month_of
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Job
from services.gateway.store.local import LocalStore

CREATED = 1_790_000_000.0
MONTH = month_of(CREATED)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path / "s", min_free_bytes=0)
    yield store
    store.close()


def _job(subject: str, job_id: str = "j", created_at: float = CREATED) -> Job:
    return Job(
        job_id=job_id, request=JobRequest(), model="m", filename="f", source_sha256="", created_at=created_at, subject=subject,
        owner=owner_of(subject),
    )  # fmt: skip


def _used(subject: str, jobs: int, gpu_seconds: float, megapixels: float) -> Usage:
    return Usage(owner=owner_of(subject), subject=subject, jobs=jobs, gpu_seconds=gpu_seconds, megapixels=megapixels)


async def test_what_the_jobs_of_an_owner_used_is_added_up(store: LocalStore):
    book = UsageBook(store)
    await book.began(_job("alice"))
    await book.span_done(_job("alice"), "s1", gpu_seconds=2.5, megapixels=10)
    await book.span_done(_job("alice"), "s2", gpu_seconds=1.5, megapixels=20)
    await book.span_done(_job("alice", "k"), "s1", gpu_seconds=1, megapixels=1)
    await book.began(_job("bob"))
    assert await book.of(owner_of("alice"), MONTH) == _used("alice", 2, 5, 31)
    assert await book.of(owner_of("bob"), MONTH) == _used("bob", 1, 0, 0)
    assert await book.of(owner_of("carol"), MONTH) == Usage(owner=owner_of("carol"), subject="")
    assert await book.of_all(MONTH) == [_used("alice", 2, 5, 31), _used("bob", 1, 0, 0)]


async def test_a_span_is_booked_once_whoever_books_it(store: LocalStore):
    one, other = UsageBook(store), UsageBook(store)
    for book in (one, other, one):
        await book.began(_job("alice"))
        await book.span_done(_job("alice"), "s1", gpu_seconds=2, megapixels=10)
    await other.span_done(_job("alice"), "s1", gpu_seconds=99, megapixels=99)
    assert await UsageBook(store).of(owner_of("alice"), MONTH) == _used("alice", 1, 2, 10)


async def test_spans_that_are_done_at_the_same_time_are_all_booked(store: LocalStore, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(usage, "_TRIES", 50)
    books = [UsageBook(store), UsageBook(store)]
    await asyncio.gather(*(books[n % 2].span_done(_job("alice"), f"s{n}", gpu_seconds=1, megapixels=2) for n in range(12)))
    assert await books[0].of(owner_of("alice"), MONTH) == _used("alice", 1, 12, 24)


async def test_a_job_counts_in_the_month_in_which_it_was_created(store: LocalStore):
    book = UsageBook(store)
    await book.began(_job("alice", "now", time.time()))
    await book.began(_job("alice", "then", 0.0))
    assert (await book.of(owner_of("alice"))).jobs == 1
    assert (await book.of(owner_of("alice"), "1970-01")).jobs == 1


async def test_an_id_that_is_used_again_is_another_job(store: LocalStore):
    book = UsageBook(store)
    for created_at in (CREATED, CREATED + 5):
        await book.span_done(_job("alice", "j", created_at), "s1", gpu_seconds=1, megapixels=1)
    assert (await book.of(owner_of("alice"), MONTH)).gpu_seconds == 2


async def test_a_bill_that_cannot_be_written_fails_no_job_and_is_told_with_its_numbers(
    store: LocalStore, caplog: pytest.LogCaptureFixture
):
    class Away(LocalStore):
        async def get(self, key: str) -> tuple[bytes, str]:
            raise StoreUnavailable("The store doesn't answer.")

    away = Away.__new__(Away)
    with caplog.at_level(logging.ERROR):
        await UsageBook(away).span_done(_job("alice"), "s1", gpu_seconds=2.5, megapixels=7)
    (line,) = caplog.records
    assert (line.job_id, line.gpu_seconds, line.megapixels) == ("j", 2.5, 7)


async def test_a_record_that_cannot_be_read_hides_no_other(store: LocalStore):
    book = UsageBook(store)
    await book.began(_job("alice"))
    await store.put(f"usage/{MONTH}/{owner_of('alice')}/broken.1.json", b"nonsense")
    assert (await book.of(owner_of("alice"), MONTH)).jobs == 1


def test_only_stages_on_the_device_cost_device_time():
    spent = DeviceTime(devices=4.0)
    for stage, seconds in (("decode", 9.0), ("dit", 2.0), ("vae_decode", 1.0), ("encode", 9.0), ("waiting", 9.0)):
        spent.note(stage, seconds)
    assert spent.seconds == 12.0


@pytest.mark.parametrize("month", ["2026", "2026-13", "2026-1", "../../owners"])
def test_what_is_no_month_is_refused(month: str):
    with pytest.raises(InvalidOption, match="no month"):
        checked_month(month)


def test_usages_of_two_records_are_one():
    assert replace(_used("", 1, 1, 1)) + _used("alice", 2, 2, 2) == Usage(
        owner=owner_of(""), subject="alice", jobs=3, gpu_seconds=3, megapixels=3
    )
