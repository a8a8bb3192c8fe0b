"""What goes when a job, or its plan, goes: everything that no other job needs."""

from services.common.errors import NotFound
from services.common.plan import Plan, plan_from_json
from services.gateway import keys
from services.gateway.book import JobBook
from services.gateway.jobs import Job
from services.gateway.keys import Ref
from services.gateway.store.base import Store


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


async def remove_job(store: Store, book: JobBook, job: Job) -> None:
    """Remove everything of a job; where this is interrupted, :func:`finish_removal` goes on."""
    await store.put(keys.job(job.ref, "deleted.json"), b"{}")
    book.forget(job.ref)
    await remove_plan(store, book, job)
    await remove_fetched(store, job)
    await _remove_objects(store, job.ref)


async def finish_removal(store: Store, book: JobBook, ref: Ref) -> None:
    """Go on with a removal that was interrupted."""
    job = await book.read(ref)
    if job is not None:
        await remove_plan(store, book, job)
        await remove_fetched(store, job)
    await _remove_objects(store, ref)


async def stored_plan(store: Store, ref: Ref) -> Plan | None:
    """A job's plan, or None before it is written."""
    try:
        return plan_from_json((await store.get(keys.job(ref, "plan.json")))[0])
    except NotFound:
        return None


async def _needed_by_others(store: Store, book: JobBook, job: Job) -> set[str]:
    found: set[str] = set()
    for other in book.jobs(job.owner):
        # Segments of another source have other names.
        if other.ref != job.ref and other.source_sha256 == job.source_sha256:
            plan = await stored_plan(store, other.ref)
            found.update(plan.span_key(span) for span in plan.spans) if plan else None
    return found


async def remove_fetched(store: Store, job: Job) -> None:
    """Remove the source where it is this job's alone."""
    if job.request.is_remote:
        for name in ("complete.json", "data", "upload.json"):
            await store.delete(keys.upload(job.upload, name))


async def _remove_objects(store: Store, ref: Ref) -> None:
    names = await store.keys(keys.job(ref, ""))
    last = keys.job(ref, "deleted.json")
    for name in [n for n in names if n != last]:
        await store.delete(name)
    await store.delete(last)
