"""Two gateways in this process on one store: what either drives, both answer for."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import pytest

from services.common.errors import AlreadyExists, JobNotFound, Unavailable, UploadNotFound, WrongState
from services.gateway import jobs, keys, records
from services.gateway.cleaning import finish_removal
from services.gateway.job_request import JobRequest
from services.gateway.jobs import State
from services.gateway.keys import LOCAL
from services.gateway.uploads import Finish
from tests.clips import make
from tests.unit.gateway.examples import ref
from tests.unit.gateway.test_control import REQUEST, Gateway, started, upload

JOB = ref("a")
SHARING = {"share_s": 0.05, "fresh_s": 0.02}


class Pair(NamedTuple):
    """Two gateways; the first one's worker stops after each segment until it may go on."""

    first: Gateway
    second: Gateway

    async def begun(self) -> None:
        """A job that the first one drives, its first segment stored."""
        self.first.workers.go.clear()
        await self.first.control.create(JOB, REQUEST)
        while not await self.first.store.keys(keys.segments(LOCAL)):
            await asyncio.sleep(0.01)


@pytest.fixture
async def pair(tmp_path: Path) -> AsyncIterator[Pair]:
    store = tmp_path / "store"
    # Who drives is then no matter of luck.
    async with started(store, **SHARING) as first, started(store, adopt_s=3600, **SHARING) as second:
        await upload(first, tmp_path)
        yield Pair(first, second)


async def test_what_one_gateway_drives_the_other_shows_with_its_progress(pair: Pair):
    await pair.begun()
    async with aclosing(pair.second.book.watch(JOB)) as changes:
        job, progress = await anext(change async for change in changes if change[1].segments_done)
    assert (job.state, progress.frames_done, progress.segments_total) == (State.RESTORING, 8, 3)
    assert [job.ref for job in await pair.second.book.page(LOCAL, [State.RESTORING])] == [JOB]
    assert (await pair.second.service.servicer._results.playlist(JOB)).segments == 1
    pair.first.workers.go.set()
    await pair.second.until("a", State.SUCCEEDED)
    assert await pair.second.book.look(JOB) == pair.first.book.get(JOB)
    assert (await pair.second.service.servicer._results.report(JOB))[0].passed
    assert pair.second.workers.spans == 0


async def test_a_job_is_cancelled_at_another_gateway_and_its_worker_gets_free(pair: Pair):
    await pair.begun()
    assert (await pair.second.control.cancel(JOB)).state is State.CANCELLED
    while pair.first.book.driven():
        await asyncio.sleep(0.01)
    assert pair.first.book.get(JOB).state is State.CANCELLED
    while await records.marked(pair.first.store):
        await asyncio.sleep(0.01)


async def test_a_job_that_is_cancelled_and_retried_at_another_gateway_at_once_begins_anew(pair: Pair):
    await pair.begun()
    await pair.second.control.cancel(JOB)
    await pair.second.control.retry(JOB)
    pair.first.workers.go.set()
    await pair.second.until("a", State.SUCCEEDED)
    job = await pair.first.book.look(JOB, latest=True)
    assert (job.state, job.failure) == (State.SUCCEEDED, None)


async def test_a_job_is_deleted_at_another_gateway_and_gone_at_all(pair: Pair):
    await pair.begun()
    with pytest.raises(WrongState, match="cancel it"):
        await pair.second.control.delete(JOB)
    await pair.second.control.cancel(JOB)
    await pair.second.control.delete(JOB)
    with pytest.raises(JobNotFound):
        await pair.first.book.look(JOB, latest=True)
    assert await pair.first.book.page(LOCAL) == []
    assert await pair.first.store.keys("owners/local/jobs/") == []
    assert await pair.first.store.keys("owners/local/segments/") == []
    assert await records.marked(pair.first.store) == []


async def test_a_job_that_its_driver_has_not_let_go_of_is_not_deleted(pair: Pair):
    await pair.begun()
    object.__setattr__(pair.second.service._driver._settings, "patience_s", 0.0)
    await pair.first.control.cancel(JOB)
    held = await pair.first.leases.acquire(JOB)
    assert held is not None
    with pytest.raises(Unavailable, match="has not let go"):
        await pair.second.control.delete(JOB)
    await pair.first.leases.release(held)
    await pair.second.control.delete(JOB)


async def test_equal_jobs_at_two_gateways_at_once_are_one(pair: Pair):
    found = await asyncio.gather(*(gateway.control.create(JOB, REQUEST) for gateway in pair for _ in range(3)))
    assert len({job.created_at for job in found}) == 1
    with pytest.raises(AlreadyExists, match="another request"):
        await pair.second.control.create(JOB, JobRequest(upload_id="u", scale=2.0))
    await pair.second.until("a", State.SUCCEEDED)
    assert pair.first.workers.spans + pair.second.workers.spans == 1


async def test_an_upload_goes_on_at_another_gateway_and_is_used_at_a_third_place(pair: Pair, tmp_path: Path):
    data = make.video(tmp_path / "b.mp4", frames=8).read_bytes()
    first, second = (gateway.service.servicer._uploads for gateway in pair)

    async def messages(*pieces: bytes | Finish) -> AsyncIterator[bytes | Finish]:
        for piece in pieces:
            yield piece

    await first.create(ref("v"), "b.mp4", len(data))
    await first.write(ref("v"), 0, messages(data[:100]))
    assert (await second.get(ref("v"))).received_bytes == 100
    await second.write(ref("v"), 100, messages(data[100:], Finish(sha256="")))
    await pair.first.control.create(JOB, JobRequest(upload_id="v", scale=1.0))
    await pair.second.until("a", State.SUCCEEDED)


async def test_an_upload_that_a_job_of_another_gateway_needs_stays(pair: Pair):
    await pair.begun()
    with pytest.raises(WrongState, match="still needs this upload"):
        await pair.second.service.servicer._uploads.delete(ref("u"))
    await pair.first.control.cancel(JOB)
    await pair.second.service.servicer._uploads.delete(ref("u"))
    with pytest.raises(UploadNotFound, match="deleted, or has expired"):
        await pair.second.control.retry(JOB)


async def test_a_driver_that_lost_its_lease_can_not_write_and_stops(pair: Pair):
    await pair.begun()
    held = pair.first.book.get(JOB).fence
    # Another gateway took the lease, and this one has not been told.
    await pair.second.book.claim(JOB, held + 5)
    with pytest.raises(WrongState, match="Another gateway drives"):
        await pair.first.book.update(JOB, lambda job: jobs.noted(job, "late"), token=held)
    pair.first.workers.go.set()
    await pair.second.until("a", State.SUCCEEDED)
    job = await pair.first.book.look(JOB, latest=True)
    assert (job.failure, job.fence > held + 5) == (None, True)


async def test_a_job_that_is_deleted_elsewhere_in_the_moment_in_which_it_is_taken_up_leaves_no_lease(pair: Pair):
    first, second = pair
    first.workers.go.set()
    await first.control.create(JOB, REQUEST)
    await second.book.look(JOB)
    await first.until("a", State.SUCCEEDED)
    await first.control.delete(JOB)
    second.service._driver.drive(JOB)
    while second.service._driver._tasks:
        await asyncio.sleep(0.01)
    assert [lease.ref for lease in second.leases.given if lease.ref == JOB], "it was taken up"
    assert JOB not in await second.leases.jobs()


async def test_of_two_jobs_that_are_deleted_at_once_at_two_gateways_no_segment_stays(pair: Pair):
    first, second = pair
    for name, labels in (("a", ()), ("b", (("x", "y"),))):
        await first.control.create(ref(name), replace(REQUEST, labels=labels))
        await first.until(name, State.SUCCEEDED)
        await second.book.look(ref(name))
    await first.book.look(ref("b"))
    # The other one has begun, and looks for what is needed when this one is gone.
    await second.book.update(ref("b"), jobs.deleting)
    await first.control.delete(JOB)
    assert await first.store.keys(keys.segments(LOCAL)) == []


async def test_a_deletion_that_was_interrupted_is_finished_by_any_gateway(pair: Pair):
    pair.first.workers.go.set()
    await pair.first.control.create(JOB, REQUEST)
    await pair.first.until("a", State.SUCCEEDED)
    while await records.marked(pair.first.store):
        await asyncio.sleep(0.01)
    stored = await records.read_job(pair.first.store, JOB)
    assert stored is not None
    await records.write_state(pair.first.store, jobs.deleting(stored.job), stored.tag)
    await records.mark(pair.first.store, JOB)
    while await pair.first.store.keys("owners/local/jobs/") + await pair.first.store.keys("active/"):
        await asyncio.sleep(0.01)
    assert await pair.first.store.keys("owners/local/segments/") == []
    with pytest.raises(JobNotFound):
        await pair.second.book.look(JOB, latest=True)
    await pair.second.control.create(JOB, REQUEST)


async def test_the_mark_of_a_job_that_has_ended_is_removed(pair: Pair):
    await pair.first.control.create(JOB, REQUEST)
    await pair.first.until("a", State.SUCCEEDED)
    await records.mark(pair.first.store, JOB)
    while await records.marked(pair.first.store):
        await asyncio.sleep(0.01)


async def test_a_job_without_a_mark_that_runs_here_gets_one(pair: Pair):
    await pair.begun()
    await records.unmark(pair.second.store, JOB)
    while not await records.marked(pair.second.store):
        await asyncio.sleep(0.01)
    assert pair.first.book.get(JOB).state is State.RESTORING


async def test_the_mark_of_a_job_that_is_just_being_created_stays_and_nobody_else_takes_its_lease(pair: Pair):
    await records.mark(pair.first.store, ref("b"))
    await pair.second.service._driver.adopt()
    assert await records.marked(pair.first.store) == [ref("b")]
    assert ref("b") not in await pair.first.leases.jobs()


async def test_a_job_of_a_later_release_is_left_alone(pair: Pair):
    key = keys.job(ref("b"), "request.json")
    await pair.first.store.put(key, b'{"schema_version": 99}')
    await records.mark(pair.first.store, ref("b"))
    await pair.second.service._driver.adopt()
    assert await pair.first.store.keys(keys.jobs(LOCAL)) == [key]
    assert await records.marked(pair.first.store) == [ref("b")]


async def test_a_result_can_be_had_at_any_gateway_as_soon_as_one_has_told_of_it(tmp_path: Path):
    store = tmp_path / "store"
    async with started(store, share_s=0.05) as first, started(store, adopt_s=3600, fresh_s=3600) as second:
        pair = Pair(first, second)
        await upload(first, tmp_path)
        await pair.begun()
        assert (await second.book.look(JOB)).result is None
        first.workers.go.set()
        await first.until("a", State.SUCCEEDED)
        result = first.book.get(JOB).result
        assert result is not None
        assert (await second.service.servicer._results.result(JOB, 0, 0)).sha256 == result.sha256


async def test_nothing_is_left_to_hold_of_a_removal_that_another_gateway_has_finished(pair: Pair):
    first = pair.first
    assert await finish_removal(first.store, first.book, ref("b"))
    await records.mark(first.store, ref("b"))
    assert not await finish_removal(first.store, first.book, ref("b"))


async def test_a_deletion_whose_caller_goes_away_is_finished_and_leaves_no_lease(pair: Pair):
    first = pair.first
    first.workers.go.set()
    await first.control.create(JOB, REQUEST)
    await first.until("a", State.SUCCEEDED)
    deleting = asyncio.create_task(first.control.delete(JOB))
    while first.book.find(JOB) is not None:
        await asyncio.sleep(0)
    deleting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await deleting
    assert await first.store.keys(keys.jobs(LOCAL)) == []
    assert list(first.leases._directory.rglob("a.lock")) == []
