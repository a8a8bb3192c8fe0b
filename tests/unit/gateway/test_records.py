from collections.abc import Iterator
from pathlib import Path

import pytest

from services.common.errors import AlreadyExists
from services.gateway import jobs, keys, records
from services.gateway.progress import Progress
from services.gateway.store.local import LocalStore
from tests.unit.gateway.examples import job, ref

JOB = ref("a")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    store = LocalStore(tmp_path, min_free_bytes=0)
    yield store
    store.close()


async def test_a_job_is_read_back_with_the_tag_of_its_state(store: LocalStore):
    await records.write_request(store, job("a"))
    first = await records.read_job(store, JOB)
    assert first == records.Stored(job=job("a"), tag=None)
    tag = await records.write_state(store, jobs.cancelled(job("a"), 20), None)
    expected = records.Stored(job=jobs.cancelled(job("a"), 20), tag=tag)
    assert await records.read_job(store, JOB) == await records.read_again(store, job("a")) == expected


async def test_a_job_that_was_created_anew_under_its_id_is_not_taken_for_the_old_one(store: LocalStore):
    old, new = job("a"), job("a", created_at=99.0, filename="new.mp4")
    await records.write_request(store, new)
    await records.write_state(store, jobs.cancelled(new, 120), None)
    again = await records.read_again(store, old)
    assert again is not None
    assert (again.job.filename, again.job.created_at) == ("new.mp4", 99.0)


async def test_a_state_that_no_request_belongs_to_is_no_job(store: LocalStore):
    await records.write_state(store, jobs.cancelled(job("a"), 20), None)
    assert await records.read_job(store, JOB) is None
    await records.write_request(store, job("a", created_at=99.0))
    assert await records.read_job(store, JOB) is None


async def test_an_id_can_not_be_used_until_the_last_object_is_gone(store: LocalStore):
    await records.write_request(store, job("a"))
    await store.put(keys.job(JOB, "request.json"), b'{"deleted": true}')
    assert await records.is_buried(store, JOB)
    assert await records.read_job(store, JOB) is None
    with pytest.raises(AlreadyExists):
        await records.write_request(store, job("a"))
    await records.bury(store, JOB)
    assert not await records.is_buried(store, JOB)
    await records.write_request(store, job("a"))


async def test_progress_of_another_run_tells_nothing(store: LocalStore):
    told = Progress(stage="dit", frames_done=5, stage_seconds={"dit": 1.5})
    await records.write_progress(store, job("a", fence=3), told)
    assert await records.read_progress(store, job("a", fence=3)) == told
    assert await records.read_progress(store, job("a", fence=4)) == Progress()
    assert await records.read_progress(store, job("b", fence=3)) == Progress()
    await store.put(keys.job(JOB, "progress.json"), b"[1]")
    assert await records.read_progress(store, job("a", fence=3)) == Progress()


async def test_marks_are_told_of_an_owner_or_of_all(store: LocalStore):
    await records.mark(store, JOB)
    await records.mark(store, ref("a", "b"))
    assert await records.marked(store) == [ref("a", "b"), JOB]
    assert await records.marked(store, "b") == [ref("a", "b")]
    await records.unmark(store, JOB)
    assert await records.marked(store, "local") == []
