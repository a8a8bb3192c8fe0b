import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import QuotaExceeded
from services.gateway.book import JobBook
from services.gateway.identity.caller import Caller, Role, calling
from services.gateway.identity.quotas import Quota, Quotas, parse_quotas
from services.gateway.identity.usage import UsageBook
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Job, cancelled
from services.gateway.store.local import LocalStore

ALICE, BOB, ROOT = (Caller(subject=s, role=r) for s, r in (("alice", Role.USER), ("bob", Role.USER), ("root", Role.ADMIN)))


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path / "s", min_free_bytes=0)
    yield store
    store.close()


def _file(path: Path, **content: Any) -> str:
    path.write_text(json.dumps(content))
    return str(path)


def _job(caller: Caller, job_id: str) -> Job:
    return Job(
        job_id=job_id, request=JobRequest(), model="m", filename="f", source_sha256="", created_at=time.time(),
        subject=caller.subject, owner=caller.owner,
    )  # fmt: skip


async def test_nothing_is_limited_without_a_file(store: LocalStore):
    quotas = Quotas("", JobBook(store), UsageBook(store))
    with calling(ALICE):
        async with quotas.place():
            pass
    assert quotas.of(ALICE) == Quota()


def test_what_a_subject_has_of_its_own_comes_before_its_roles(tmp_path: Path, store: LocalStore):
    file = _file(
        tmp_path / "q", roles={"user": {"active_jobs": 2, "megapixels_month": 5}}, subjects={"alice": {"active_jobs": 9}}
    )
    quotas = Quotas(file, JobBook(store), UsageBook(store))
    assert quotas.of(ALICE) == Quota(active_jobs=9, megapixels_month=5)
    assert quotas.of(BOB) == Quota(active_jobs=2, megapixels_month=5)
    assert quotas.of(ROOT) == Quota()


async def test_whoever_has_as_many_jobs_as_they_may_waits_until_one_has_ended(tmp_path: Path, store: LocalStore):
    book = JobBook(store)
    quotas = Quotas(_file(tmp_path / "q", roles={"user": {"active_jobs": 2}}), book, UsageBook(store))
    jobs = [await book.create(_job(ALICE, name)) for name in ("a", "b")]
    with calling(ALICE), pytest.raises(QuotaExceeded, match=r"have 2 jobs .* may have 2") as caught:
        async with quotas.place():
            pass
    assert caught.value.field == "active_jobs"
    with calling(BOB):
        async with quotas.place():
            pass
    await book.update(jobs[0].ref, lambda job: cancelled(job, time.time()))
    with calling(ALICE):
        async with quotas.place():
            pass


async def test_jobs_that_begin_at_the_same_moment_count(tmp_path: Path, store: LocalStore):
    quotas = Quotas(_file(tmp_path / "q", roles={"user": {"active_jobs": 1}}), JobBook(store), UsageBook(store))
    with calling(ALICE):
        async with quotas.place():
            with pytest.raises(QuotaExceeded):
                async with quotas.place():
                    pass
        async with quotas.place():
            pass


@pytest.mark.parametrize("name", ["gpu_seconds_month", "megapixels_month"])
async def test_whoever_has_used_up_a_month_begins_nothing_more(tmp_path: Path, store: LocalStore, name: str):
    usage = UsageBook(store)
    quotas = Quotas(_file(tmp_path / "q", roles={"user": {name: 10}}), JobBook(store), usage)
    await usage.span_done(_job(ALICE, "a"), "s", gpu_seconds=12, megapixels=12)
    with calling(ALICE), pytest.raises(QuotaExceeded, match="used 12 of your 10") as caught:
        async with quotas.place():
            pass
    assert caught.value.field == name
    with calling(BOB):
        async with quotas.place():
            pass


async def test_a_changed_file_counts_at_once(tmp_path: Path, store: LocalStore):
    quotas = Quotas(_file(tmp_path / "q", roles={"user": {"active_jobs": 0}}), JobBook(store), UsageBook(store))
    with calling(ALICE), pytest.raises(QuotaExceeded):
        async with quotas.place():
            pass
    _file(tmp_path / "next", roles={"user": {"active_jobs": 1}})
    (tmp_path / "next").replace(tmp_path / "q")
    with calling(ALICE):
        async with quotas.place():
            pass


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ([], "must be an object"),
        ({"rolls": {}}, "must be an object"),
        ({"roles": {"boss": {}}}, "boss"),
        ({"roles": {"user": {"jobs": 1}}}, "nothing but active_jobs"),
        ({"subjects": {"alice": {"active_jobs": "many"}}}, "active_jobs of alice must be a number"),
        ({"subjects": {"alice": {"active_jobs": -1}}}, "must be a number of at least 0"),
    ],
)
def test_a_wrong_file_is_told(content: Any, words: str):
    with pytest.raises(ValueError, match=words):
        parse_quotas(json.dumps(content).encode())
