"""What the store has of jobs: requests, states, progress, and the marks of those that must be looked after."""

import contextlib
import json
from dataclasses import dataclass

from services.common.errors import NewerRelease, NotFound
from services.gateway import keys
from services.gateway.job_json import OtherJob, job_from_json, request_to_json, state_to_json
from services.gateway.jobs import Job
from services.gateway.keys import Ref
from services.gateway.progress import Progress, progress_from_json, progress_to_json
from services.gateway.store.base import Store

_GRAVE = json.dumps({"deleted": True}).encode()
_TRIES = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Stored:
    """A job as it was read."""

    job: Job
    """As it was."""

    tag: str | None
    """Of its state; None before the first one was written."""


async def read_job(store: Store, ref: Ref) -> Stored | None:
    """A job, or None where there is none.

    Raises:
        ValueError: it can't be read by this release.
    """
    for _ in range(_TRIES):
        try:
            request, _ = await store.get(keys.job(ref, "request.json"))
        except NotFound:
            return None
        if request == _GRAVE:
            return None
        state, tag = await _state(store, ref)
        try:
            return Stored(job=_parsed(request, state), tag=tag)
        except OtherJob:
            # It was deleted, and created anew, between the two.
            continue
    return None


async def read_again(store: Store, job: Job) -> Stored | None:
    """A job whose request is known, or another one that has its id by now; None where there is none. Raises ValueError."""
    state, tag = await _state(store, job.ref)
    if state is not None:
        try:
            return Stored(job=_parsed(request_to_json(job), state), tag=tag)
        except OtherJob:
            pass
    return await read_job(store, job.ref)


async def is_written(store: Store, ref: Ref) -> bool:
    """Whether there is a job, or what is left of one that is being deleted."""
    return await _is_there(store, keys.job(ref, "request.json"))


async def write_request(store: Store, job: Job) -> None:
    """Write a new job down. Raises AlreadyExists."""
    await store.put(keys.job(job.ref, "request.json"), request_to_json(job), if_absent=True)


async def write_state(store: Store, job: Job, tag: str | None) -> str:
    """Write the state that follows the one with ``tag``; returns the new tag. Raises AlreadyExists, WrongState, NotFound."""
    return await store.put(keys.job(job.ref, "state.json"), state_to_json(job), if_absent=tag is None, if_match=tag)


async def read_progress(store: Store, job: Job) -> Progress:
    """What whoever drives a job told of it."""
    try:
        return progress_from_json((await store.get(keys.job(job.ref, "progress.json")))[0], job.fence)
    except (NotFound, ValueError, TypeError):
        return Progress()


async def write_progress(store: Store, job: Job, progress: Progress) -> None:
    """Tell other gateways what is being done for a job."""
    await store.put(keys.job(job.ref, "progress.json"), progress_to_json(progress, job.fence))


async def mark(store: Store, ref: Ref) -> None:
    """Have gateways look after a job."""
    await store.put(keys.active(ref), b"{}")


async def unmark(store: Store, ref: Ref) -> None:
    """Nothing is left to do for a job."""
    await store.delete(keys.active(ref))


async def is_marked(store: Store, ref: Ref) -> bool:
    """Whether gateways look after a job."""
    return await _is_there(store, keys.active(ref))


async def marked(store: Store, owner: str = "") -> list[Ref]:
    """Jobs that must be looked after, of an owner or of all."""
    return keys.marked(await store.keys(keys.ACTIVE + (f"{owner}/" if owner else "")))


async def job_refs(store: Store, owner: str) -> list[Ref]:
    """Everything that an owner has among the jobs, also what is being deleted."""
    return [Ref(owner, name) for name in await store.names(keys.jobs(owner))]


async def owners(store: Store) -> list[str]:
    """Everybody who has something."""
    return await store.names(keys.OWNERS)


async def bury(store: Store, ref: Ref) -> None:
    """Remove all objects of a job; until the last one is gone its id can't be used, and no reader takes it for a job."""
    await store.put(keys.job(ref, "request.json"), _GRAVE)
    await remove_remains(store, ref)
    await store.delete(keys.job(ref, "request.json"))


async def is_buried(store: Store, ref: Ref) -> bool:
    """Whether :func:`bury` was interrupted."""
    with contextlib.suppress(NotFound):
        return (await store.get(keys.job(ref, "request.json")))[0] == _GRAVE
    return False


async def remove_remains(store: Store, ref: Ref) -> None:
    """Remove what lies beside the request of a job."""
    names = await store.keys(keys.job(ref, ""))
    for name in (n for n in names if n != keys.job(ref, "request.json")):
        await store.delete(name)


async def last_written(store: Store, key: str) -> float | None:
    """When an object was written last, in seconds since 1970; None: there is none."""
    try:
        return await store.modified(key)
    except NotFound:
        return None


async def _is_there(store: Store, key: str) -> bool:
    try:
        await store.size(key)
    except NotFound:
        return False
    return True


async def _state(store: Store, ref: Ref) -> tuple[bytes | None, str | None]:
    try:
        return await store.get(keys.job(ref, "state.json"))
    except NotFound:
        return None, None


def _parsed(request: bytes, state: bytes | None) -> Job:
    try:
        return job_from_json(request, state)
    except (NewerRelease, TypeError, KeyError) as error:
        raise ValueError(f"not a job of this release: {error}") from error
