"""What goes when a job, or its plan, goes: everything that no other job needs."""

from services.common.errors import NotFound
from services.common.plan import Plan, plan_from_json
from services.gateway import keys
from services.gateway.book import JobBook
from services.gateway.jobs import Job
from services.gateway.store.base import Store


async def remove_plan(store: Store, book: JobBook, job: Job) -> None:
    """Remove a job's plan and the segments that only this plan names."""
    plan = await stored_plan(store, job.job_id)
    if plan is None:
        return
    needed = await _needed_by_others(store, book, job)
    for key in {plan.span_key(span) for span in plan.spans} - needed:
        for name in await store.keys(keys.segment(key, "")):
            await store.delete(name)
    await store.delete(keys.job(job.job_id, "plan.json"))


async def remove_job(store: Store, book: JobBook, job: Job) -> None:
    """Remove everything of a job; where this is interrupted, :func:`finish_removal` goes on."""
    await store.put(keys.job(job.job_id, "deleted.json"), b"{}")
    book.forget(job.job_id)
    await remove_plan(store, book, job)
    await _remove_objects(store, job.job_id)


async def finish_removal(store: Store, book: JobBook, job_id: str) -> None:
    """Go on with a removal that was interrupted."""
    job = await book.read(job_id)
    if job is not None:
        await remove_plan(store, book, job)
    await _remove_objects(store, job_id)


async def stored_plan(store: Store, job_id: str) -> Plan | None:
    """A job's plan, or None before it is written."""
    try:
        return plan_from_json((await store.get(keys.job(job_id, "plan.json")))[0])
    except NotFound:
        return None


async def _needed_by_others(store: Store, book: JobBook, job: Job) -> set[str]:
    found: set[str] = set()
    for other in book.jobs():
        # Segments of another source have other names.
        if other.job_id != job.job_id and other.source_sha256 == job.source_sha256:
            plan = await stored_plan(store, other.job_id)
            found.update(plan.span_key(span) for span in plan.spans) if plan else None
    return found


async def _remove_objects(store: Store, job_id: str) -> None:
    names = await store.keys(keys.job(job_id, ""))
    last = keys.job(job_id, "deleted.json")
    for name in [n for n in names if n != last]:
        await store.delete(name)
    await store.delete(last)
