import asyncio

from services.gateway.jobs import State
from services.gateway.memory import Entry, JobMemory, brief_of
from tests.unit.gateway.examples import job, ref


def entry(name: str, **changes) -> Entry:
    return Entry(job(name, **changes), None, 0.0)


def test_of_the_job_that_ended_first_only_what_lists_need_stays():
    memory = JobMemory(2)
    ended = [entry(name, state=State.FAILED, created_at=number) for number, name in enumerate("abc")]
    for each in (*ended, entry("running")):
        memory.keep(each)
    assert memory.get(ref("a")) is None
    assert {e.job.job_id for e in memory.entries()} == {"b", "c", "running"}
    assert dict(memory.briefs())[ref("a")] == brief_of(ended[0].job)
    assert {r.id for r, _ in memory.briefs("local")} == {"a", "b", "c", "running"}
    assert list(memory.briefs("other")) == []


def test_jobs_that_have_not_ended_stay_whole_however_many_they_are():
    memory = JobMemory(1)
    for number in range(50):
        memory.keep(entry(str(number)))
    assert len(memory.entries()) == 50


def test_a_job_that_is_retried_is_whole_again_and_no_longer_counts_as_ended():
    memory = JobMemory(1)
    memory.keep(entry("a", state=State.FAILED))
    memory.keep(entry("b", state=State.FAILED))
    memory.keep(entry("a"))
    memory.keep(entry("c", state=State.FAILED))
    assert {e.job.job_id for e in memory.entries()} == {"a", "c"}
    assert len(dict(memory.briefs())) == 3


def test_what_is_not_known_is_told_and_what_is_not_known_whole():
    memory = JobMemory(0)
    memory.keep(entry("a", state=State.FAILED))
    memory.keep(entry("b"))
    refs = [ref("a"), ref("b"), ref("c")]
    assert memory.unknown(refs, whole=False) == {ref("c")}
    assert memory.unknown(refs, whole=True) == {ref("a"), ref("c")}


async def test_whoever_waits_is_told_when_a_job_is_gone():
    memory, mine = JobMemory(1), entry("a")
    memory.keep(mine)
    waiting = asyncio.create_task(mine.changed.wait())
    await asyncio.sleep(0)
    memory.forget(ref("a"))
    await waiting
    assert (memory.get(ref("a")), list(memory.briefs())) == (None, [])
