import asyncio
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import AlreadyExists, Draining, JobNotFound, WrongState
from services.gateway import jobs
from services.gateway.book import JobBook
from services.gateway.jobs import State
from services.gateway.progress import Progress
from services.gateway.store.local import LocalStore
from tests.unit.gateway.examples import job, ref


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path, min_free_bytes=0)
    yield store
    store.close()


def plan(now: jobs.Job) -> jobs.Job:
    return jobs.advance(now, State.PLANNING, 20)


async def test_a_job_is_there_after_a_restart(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    await book.create(job("b", created_at=11.0))
    await book.update(ref("a"), plan, token=3)
    again = JobBook(store)
    assert await again.load() == []
    assert [j.job_id for j in again.jobs()] == ["b", "a"]
    assert again.get(ref("a")) == book.get(ref("a"))
    assert (again.get(ref("a")).state, again.get(ref("a")).revision, again.get(ref("a")).fence) == (State.PLANNING, 1, 3)


async def test_an_id_is_taken_once(store: LocalStore):
    await JobBook(store).create(job("a"))
    with pytest.raises(AlreadyExists):
        await JobBook(store).create(job("a"))


async def test_a_change_is_made_to_what_somebody_else_wrote(store: LocalStore):
    book, other = JobBook(store), JobBook(store)
    await book.create(job("a"))
    await other.load()
    await other.update(ref("a"), lambda now: jobs.noted(now, "theirs"))
    await book.update(ref("a"), lambda now: jobs.noted(now, "ours"))
    assert book.get(ref("a")).notes == ("theirs", "ours")


async def test_an_earlier_lease_can_not_write_any_more(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    await book.update(ref("a"), plan, token=5)
    with pytest.raises(WrongState, match="Another gateway"):
        await book.update(ref("a"), lambda now: jobs.noted(now, "x"), token=4)
    await book.update(ref("a"), lambda now: jobs.cancelled(now, 30))
    assert book.get(ref("a")).fence == 5


async def test_a_change_that_is_not_allowed_writes_nothing(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    before = await book.update(ref("a"), lambda now: jobs.cancelled(now, 30))
    with pytest.raises(WrongState):
        await book.update(ref("a"), plan)
    assert (await book.refresh(ref("a"))) == before


async def test_a_caller_that_goes_away_does_not_stop_a_write(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    writing = asyncio.create_task(book.update(ref("a"), plan))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await book.update(ref("a"), lambda now: jobs.noted(now, "x"))
    assert (await book.refresh(ref("a"))).state is State.PLANNING


async def test_whoever_watches_sees_progress_and_the_end(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    seen: list[tuple[State, str]] = []
    async for now, progress in book.watch(ref("a")):
        seen.append((now.state, progress.stage))
        if len(seen) == 1:
            book.show(ref("a"), Progress(stage="probe"))
        else:
            await book.update(ref("a"), lambda now: jobs.cancelled(now, 30))
    assert seen == [(State.PENDING, ""), (State.PENDING, "probe"), (State.CANCELLED, "probe")]


async def test_watching_ends_when_the_job_is_gone_or_the_gateway_goes(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    await book.create(job("b"))
    gone, closed = book.watch(ref("a")), book.watch(ref("b"))
    await anext(gone)
    await anext(closed)
    book.forget(ref("a"))
    with pytest.raises(JobNotFound):
        await anext(gone)
    ending = asyncio.create_task(anext(closed))
    await asyncio.sleep(0)
    book.close()
    with pytest.raises(Draining):
        await ending


async def test_a_job_whose_deletion_was_interrupted_is_not_listed(store: LocalStore):
    await JobBook(store).create(job("a"))
    await store.put("owners/local/jobs/a/deleted.json", b"{}")
    book = JobBook(store)
    assert await book.load() == [ref("a")]
    assert book.jobs() == []


async def test_a_job_that_can_not_be_read_is_left_alone(store: LocalStore):
    await store.put("owners/local/jobs/bad/request.json", b'{"schema_version": 99}')
    await JobBook(store).create(job("a"))
    book = JobBook(store)
    await book.load()
    assert [j.job_id for j in book.jobs()] == ["a"]


async def test_jobs_are_found_by_state_and_by_upload(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    await book.create(job("b", request=replace(job().request, upload_id="v")))
    await book.update(ref("a"), lambda now: jobs.cancelled(now, 30))
    assert [j.job_id for j in book.jobs(states=[State.CANCELLED])] == ["a"]
    assert (book.users_of(ref("u")), book.users_of(ref("v"))) == ([], ["b"])
    assert book.find(ref("nobody")) is None
    with pytest.raises(JobNotFound):
        book.get(ref("nobody"))


async def test_two_owners_have_equal_ids_each_for_themselves(store: LocalStore):
    book = JobBook(store)
    mine, theirs = ref("a"), ref("a", "b")
    await book.create(job("a"))
    await book.create(job("a", owner="b", model="other"))
    await book.update(theirs, plan)
    assert (book.get(mine).state, book.get(theirs).state) == (State.PENDING, State.PLANNING)
    assert [j.ref for j in book.jobs("b")] == [theirs]
    assert [j.ref for j in book.jobs()] == [mine, theirs]
    assert (book.users_of(ref("u")), book.users_of(ref("u", "c"))) == (["a"], [])
    again = JobBook(store)
    await again.load()
    assert again.get(theirs) == book.get(theirs)
    assert again.get(mine) == book.get(mine)


async def test_whoever_claims_a_job_shuts_out_all_who_drove_it_before(store: LocalStore):
    first, second = JobBook(store), JobBook(store)
    await first.create(job("a"))
    held = (await first.claim(ref("a"), 7)).fence
    await first.update(ref("a"), plan, token=held)
    await second.load()
    # The tokens of leases whose directory was lost begin anew.
    now = (await second.claim(ref("a"), 1)).fence
    assert now > held == 7
    with pytest.raises(WrongState, match="Another gateway"):
        await first.update(ref("a"), lambda now: jobs.noted(now, "late"), token=held)
    assert (await second.update(ref("a"), lambda job: jobs.noted(job, "new"), token=now)).notes == ("new",)


async def test_a_job_that_has_ended_is_not_claimed(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    ended = await book.update(ref("a"), lambda now: jobs.cancelled(now, 30))
    assert await book.claim(ref("a"), 3) == ended
