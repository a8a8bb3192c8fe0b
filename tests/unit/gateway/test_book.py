import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import AlreadyExists, Draining, JobNotFound, NewerRelease, WrongState
from services.gateway import jobs, records
from services.gateway.book import JobBook
from services.gateway.jobs import State
from services.gateway.memory import listed_by
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
    assert await again.scan() == [ref("a"), ref("b")]
    assert [j.job_id for j in again.active()] == ["a", "b"]
    assert [j.job_id for j in await again.page("local")] == ["b", "a"]
    assert again.get(ref("a")) == book.get(ref("a"))
    assert (again.get(ref("a")).state, again.get(ref("a")).revision, again.get(ref("a")).fence) == (State.PLANNING, 1, 3)


async def test_an_id_is_taken_once(store: LocalStore):
    await JobBook(store).create(job("a"))
    with pytest.raises(AlreadyExists):
        await JobBook(store).create(job("a"))


async def test_a_job_that_is_found_before_its_creation_is_answered_is_the_same(tmp_path: Path):
    class Slow(LocalStore):
        """Somebody looks for jobs before its answer is there."""

        async def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
            tag = await super().put(key, data, if_absent=if_absent, if_match=if_match)
            if key.endswith("request.json"):
                await book.scan()
                book.drive(ref("a"), True)
            return tag

    with contextlib.closing(Slow(tmp_path, min_free_bytes=0)) as slow:
        book = JobBook(slow)
        await book.create(job("a"))
        assert [each.job_id for each in book.driven()] == ["a"]


async def test_a_change_is_made_to_what_somebody_else_wrote(store: LocalStore):
    book, other = JobBook(store), JobBook(store)
    await book.create(job("a"))
    await other.scan()
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
    assert (await book.look(ref("a"), latest=True)) == before


async def test_a_caller_that_goes_away_does_not_stop_a_write(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    writing = asyncio.create_task(book.update(ref("a"), plan))
    await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing
    await book.update(ref("a"), lambda now: jobs.noted(now, "x"))
    assert (await book.look(ref("a"), latest=True)).state is State.PLANNING


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
    await store.delete("owners/local/jobs/a/request.json")
    book.forget(ref("a"))
    with pytest.raises(JobNotFound):
        await anext(gone)
    ending = asyncio.create_task(anext(closed))
    await asyncio.sleep(0)
    book.close()
    with pytest.raises(Draining):
        await ending


async def test_a_job_whose_deletion_was_interrupted_is_not_listed_but_looked_after(store: LocalStore):
    first = JobBook(store)
    await first.create(job("a"))
    await first.update(ref("a"), lambda now: jobs.cancelled(now, 30))
    await first.update(ref("a"), jobs.deleting)
    book = JobBook(store)
    assert await book.scan() == [ref("a")]
    assert await book.page("local") == []
    with pytest.raises(JobNotFound):
        await book.look(ref("a"))


async def test_a_job_that_can_not_be_read_is_left_alone(store: LocalStore):
    await store.put("owners/local/jobs/bad/request.json", b'{"schema_version": 99}')
    await JobBook(store).create(job("a"))
    book = JobBook(store)
    assert [j.job_id for j in await book.page("local")] == ["a"]


async def test_jobs_are_found_by_state_and_by_upload(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    await book.create(job("b", request=replace(job().request, upload_id="v")))
    await book.update(ref("a"), lambda now: jobs.cancelled(now, 30))
    assert [j.job_id for j in await book.page("local", [State.CANCELLED])] == ["a"]
    assert (await book.users_of(ref("u")), await book.users_of(ref("v"))) == ([], ["b"])
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
    assert [j.ref for j in await book.page("b")] == [theirs]
    assert [j.ref for j in await book.page(None)] == [mine, theirs]
    assert (await book.users_of(ref("u")), await book.users_of(ref("u", "c"))) == (["a"], [])
    again = JobBook(store)
    assert await again.look(theirs) == book.get(theirs)
    assert await again.look(mine) == book.get(mine)


async def test_whoever_claims_a_job_shuts_out_all_who_drove_it_before(store: LocalStore):
    first, second = JobBook(store), JobBook(store)
    await first.create(job("a"))
    held = (await first.claim(ref("a"), 7)).fence
    await first.update(ref("a"), plan, token=held)
    await second.scan()
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


async def test_what_another_gateway_writes_is_seen_when_what_is_known_is_old(store: LocalStore):
    mine, theirs = JobBook(store, fresh_s=60), JobBook(store, fresh_s=0)
    await mine.create(job("a"))
    assert (await theirs.look(ref("a"))).state is State.PENDING
    await mine.update(ref("a"), plan)
    assert (await theirs.look(ref("a"))).state is State.PLANNING
    await theirs.update(ref("a"), lambda now: jobs.cancelled(now, 30))
    assert (await mine.look(ref("a"))).state is State.PLANNING
    assert (await mine.look(ref("a"), latest=True)).state is State.CANCELLED


async def test_whoever_watches_a_job_that_was_retried_elsewhere_does_not_hear_of_its_earlier_end(store: LocalStore):
    mine, theirs = JobBook(store, fresh_s=60), JobBook(store, fresh_s=60)
    await mine.create(job("a"))
    await mine.update(ref("a"), lambda now: jobs.cancelled(now, 30))
    await theirs.look(ref("a"))
    await theirs.update(ref("a"), lambda now: jobs.retried(now, 40))
    assert mine.get(ref("a")).state is State.CANCELLED
    async with contextlib.aclosing(mine.watch(ref("a"))) as changes:
        assert (await anext(changes))[0].state is State.PENDING


async def test_an_id_that_can_be_none_is_no_job(store: LocalStore):
    for wrong in ("../x", "", "A", "a/b"):
        with pytest.raises(JobNotFound):
            await JobBook(store).look(ref(wrong))


async def test_pages_hold_all_jobs_once_also_those_that_memory_let_go_of(store: LocalStore):
    first, book = JobBook(store), JobBook(store, fresh_s=0, kept=2)
    for number in range(7):
        await first.create(job(f"j{number}", created_at=float(number)))
        await first.update(ref(f"j{number}"), lambda now: jobs.cancelled(now, 30))
        await records.unmark(store, ref(f"j{number}"))
    found: list[str] = []
    after = None
    while page := await book.page("local", after=after, size=3):
        found += [j.job_id for j in page]
        after = listed_by(page[-1])
    assert found == [f"j{number}" for number in reversed(range(7))]
    await store.delete("owners/local/jobs/j3/state.json")
    await store.delete("owners/local/jobs/j3/request.json")
    assert "j3" not in [j.job_id for j in await book.page("local")]
    # One that is retried elsewhere is seen by its mark.
    await records.mark(store, ref("j0"))
    await first.update(ref("j0"), lambda now: jobs.retried(now, 40))
    assert [j.job_id for j in await book.page("local", [State.PENDING])] == ["j0"]


async def test_who_rests_between_two_words_is_told_of_the_stop_too(store: LocalStore):
    book = JobBook(store, fresh_s=3600)
    await book.create(job("a"))
    watching = book.watch(ref("a"))
    await anext(watching)
    ending = asyncio.create_task(anext(watching))
    await asyncio.sleep(0)
    # It wakes up, and rests before it looks again.
    book.show(ref("a"), book.progress(ref("a")))
    await asyncio.sleep(0.05)
    book.close()
    with pytest.raises(Draining):
        await ending


# ---- later releases ----

STATE = "owners/local/jobs/a/state.json"


async def test_what_a_later_release_wrote_is_shown_and_not_changed(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    await book.update(ref("a"), plan)
    data, _ = await store.get(STATE)
    later = data.replace(b'"revision": 1', b'"revision": 2, "mood": "good"').replace(b"PLANNING", b"JOINING")
    await store.put(STATE, later)
    shown = await book.look(ref("a"), latest=True)
    assert (shown.state, shown.revision, shown.newer) == (State.JOINING, 2, True)
    for change in (book.update(ref("a"), lambda now: jobs.cancelled(now, 30)), book.claim(ref("a"), 9)):
        with pytest.raises(NewerRelease, match="in the hands of a later release"):
            await change
    assert (await store.get(STATE))[0] == later


async def test_a_change_that_meets_a_later_release_is_not_made(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    await book.update(ref("a"), plan)
    later = (await store.get(STATE))[0].replace(b'"revision"', b'"mood": "good", "revision"')
    await store.put(STATE, later)
    with pytest.raises(NewerRelease):
        await book.update(ref("a"), lambda now: jobs.noted(now, "x"))
    assert (await store.get(STATE))[0] == later


async def test_a_job_that_is_left_stays_left(store: LocalStore):
    book = JobBook(store)
    await book.create(job("a"))
    book.leave(ref("a"))
    assert (await book.look(ref("a"), latest=True)).newer
    with pytest.raises(NewerRelease):
        await book.update(ref("a"), plan)
