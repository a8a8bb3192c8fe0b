"""What goes when a job, or its plan, goes: everything that no other job of the owner needs."""

import time

from services.common.errors import NotFound, StoreFull
from services.common.plan import Plan, plan_from_json
from services.gateway import jobs, keys, records
from services.gateway.book import JobBook
from services.gateway.jobs import Job
from services.gateway.keys import Ref
from services.gateway.store.base import Store

# A job is marked before it is written; whoever takes longer than this was killed in between.
_CREATION_S = 600.0


async def remove_plan(store: Store, book: JobBook, job: Job) -> None:
    """Remove a job's plan and the segments that only this plan names."""
    plan = await stored_plan(store, job.ref)
    if plan is None:
        return
    needed = await _needed_by_others(store, book, job)
    for key in {plan.span_key(span) for span in plan.spans} - needed:
        for name in await store.keys(keys.segment(job.owner, key, "")):
            await store.delete(name)
    await store.delete(keys.job(job.ref, "plan.json"))


async def remove_job(store: Store, book: JobBook, ref: Ref) -> None:
    """Remove everything of a job that has ended, under its lease; where this is interrupted, :func:`finish_removal` goes on.

    Raises:
        WrongState: it was retried meanwhile.
        StoreFull: not even room for that could be made; result and segments are gone, the rest goes at the next try.
    """
    try:
        await _begin_removal(store, book, ref)
    except StoreFull:
        # Whoever deletes makes room; without any, not even that can be written down.
        await _remove_artifacts(store, book, ref)
        await _begin_removal(store, book, ref)
    book.forget(ref)
    await finish_removal(store, book, ref)


async def _begin_removal(store: Store, book: JobBook, ref: Ref) -> None:
    await book.update(ref, jobs.deleting)
    await records.mark(store, ref)


async def _remove_artifacts(store: Store, book: JobBook, ref: Ref) -> None:
    job = await book.look(ref, latest=True)
    jobs.deleting(job)
    for name in await store.keys(keys.job(ref, "")):
        if name.startswith(keys.job(ref, "result.")):
            await store.delete(name)
    await remove_plan(store, book, job)


async def is_beginning(store: Store, ref: Ref) -> bool:
    """Whether a marked job of which nothing is written may be one that is just being created."""
    age_s = await _age_s(store, keys.active(ref))
    return age_s is not None and age_s < _CREATION_S


async def finish_removal(store: Store, book: JobBook, ref: Ref) -> bool:
    """Remove what is left of a job that was being removed; False where it is none, or may be one that is just being created.

    True, too, where somebody else was quicker.

    Raises:
        ValueError: it is a job that this release can't read.
    """
    stored = await records.read_job(store, ref)
    if stored is not None and stored.job.deleting:
        await remove_plan(store, book, stored.job)
        await remove_fetched(store, stored.job)
        await records.bury(store, ref)
    elif await records.is_buried(store, ref):
        await records.bury(store, ref)
    elif stored is not None:
        return False
    else:
        age_s = await _age_s(store, keys.active(ref))
        if age_s is None or age_s < _CREATION_S:
            return age_s is None
        await records.remove_remains(store, ref)
    await records.unmark(store, ref)
    return True


async def stored_plan(store: Store, ref: Ref) -> Plan | None:
    """A job's plan, or None before it is written."""
    try:
        return plan_from_json((await store.get(keys.job(ref, "plan.json")))[0])
    except NotFound:
        return None


async def _needed_by_others(store: Store, book: JobBook, job: Job) -> set[str]:
    found: set[str] = set()
    # Segments of another source have other names.
    for other in await book.sharing(job):
        plan = None if await _is_going(store, other) else await stored_plan(store, other)
        found.update(plan.span_key(span) for span in plan.spans) if plan else None
    return found


async def _is_going(store: Store, ref: Ref) -> bool:
    """Whether a job is being removed: of two that go at once, each began before it looked, so one at least sees the other go."""
    try:
        stored = await records.read_job(store, ref)
    except ValueError:
        return False
    return stored is None or stored.job.deleting


async def remove_fetched(store: Store, job: Job) -> None:
    """Remove the source where it is this job's alone."""
    if job.request.is_remote:
        for name in ("complete.json", "data", "upload.json"):
            await store.delete(keys.upload(job.upload, name))


async def _age_s(store: Store, key: str) -> float | None:
    """Seconds since an object was written; None: there is none."""
    written = await records.last_written(store, key)
    return None if written is None else time.time() - written
