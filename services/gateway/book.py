"""The book of jobs: the store is the truth, memory a cache; and whoever watches a job is told of each change."""

import asyncio
import logging
from collections.abc import AsyncGenerator, Iterable
from dataclasses import dataclass, field, replace

from services.common.errors import AlreadyExists, Draining, JobNotFound, NotFound, WrongState
from services.gateway import keys
from services.gateway.jobs import Change, Job, State, job_from_json, request_to_json, state_to_json
from services.gateway.keys import Ref
from services.gateway.progress import Progress
from services.gateway.store.base import Store

_log = logging.getLogger(__name__)
# A person sees no more than this, and a stream shouldn't carry more.
_SHORTEST_PAUSE_S = 0.2
_TRIES = 5


@dataclass(slots=True)
class _Entry:
    job: Job
    tag: str | None
    progress: Progress = field(default_factory=Progress)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    writing: asyncio.Lock = field(default_factory=asyncio.Lock)


class JobBook:
    """All jobs. Methods raise JobNotFound for an id that is not there, StoreUnavailable where the store fails."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._entries: dict[Ref, _Entry] = {}
        self._closing = False

    async def load(self) -> list[Ref]:
        """Read jobs that memory doesn't have; returns those whose deletion was interrupted."""
        found = await self._store.keys(keys.OWNERS)
        deleted = keys.jobs_with(found, "deleted.json")
        for ref in keys.jobs_with(found, "request.json"):
            if ref not in self._entries and ref not in deleted:
                entry = await self._read(ref)
                if entry is not None:
                    self._entries[ref] = entry
        return deleted

    async def create(self, job: Job) -> Job:
        """Write a new job down; from then on it is never lost.

        Raises:
            AlreadyExists: the id is taken.
        """
        await self._store.put(keys.job(job.ref, "request.json"), request_to_json(job), if_absent=True)
        self._entries[job.ref] = _Entry(job, None)
        return job

    def get(self, ref: Ref) -> Job:
        """A job as it is now."""
        return self._entry(ref).job

    def find(self, ref: Ref) -> Job | None:
        """The same, or None."""
        entry = self._entries.get(ref)
        return entry.job if entry else None

    def progress(self, ref: Ref) -> Progress:
        """What is being done for a job."""
        return self._entry(ref).progress

    def jobs(self, owner: str | None = None, states: Iterable[State] = ()) -> list[Job]:
        """The jobs of an owner, or of all, those in some states, or in any; newest first."""
        wanted = frozenset(states)
        found = [e.job for e in self._entries.values() if owner in (None, e.job.owner) and (not wanted or e.job.state in wanted)]
        return sorted(found, key=listed_by, reverse=True)

    def users_of(self, upload: Ref) -> list[str]:
        """Ids of jobs that still need an upload."""
        return [e.job.job_id for e in self._entries.values() if e.job.upload == upload and not e.job.state.ended]

    async def update(self, ref: Ref, change: Change, *, token: int = 0) -> Job:
        """Write a change down, made to the newest state; ``token`` is that of the lease under which it is made.

        Raises:
            WrongState: the change isn't allowed in that state, or a later lease has written.
        """
        # A caller that goes away must not leave memory behind the store.
        return await asyncio.shield(asyncio.ensure_future(self._update(self._entry(ref), change, token)))

    async def claim(self, ref: Ref, token: int) -> Job:
        """Shut out whoever drove the job before: from now on only writes with the ``fence`` of the job returned are taken."""
        entry = self._entry(ref)
        async with entry.writing:
            await self._refresh(entry)
        if entry.job.state.ended:
            return entry.job
        # Where leases were lost with their directory, their tokens begin anew.
        return await self.update(ref, lambda job: replace(job, fence=max(token, job.fence + 1)))

    def show(self, ref: Ref, progress: Progress) -> None:
        """Tell watchers what is being done; not written down."""
        entry = self._entries.get(ref)
        if entry is not None:
            entry.progress = progress
            _tell(entry)

    async def refresh(self, ref: Ref) -> Job:
        """The job as the store has it."""
        entry = self._entry(ref)
        async with entry.writing:
            await self._refresh(entry)
        return entry.job

    async def read(self, ref: Ref) -> Job | None:
        """A job as the store has it, known here or not; None where it has none that can be read."""
        entry = await self._read(ref)
        return entry.job if entry else None

    def forget(self, ref: Ref) -> None:
        """Drop a job that was deleted."""
        entry = self._entries.pop(ref, None)
        if entry is not None:
            _tell(entry)

    async def watch(self, ref: Ref) -> AsyncGenerator[tuple[Job, Progress], None]:
        """The job now and after each change, until it has ended.

        Raises:
            Draining: this server is about to stop.
        """
        while True:
            entry = self._entry(ref)
            changed, job = entry.changed, entry.job
            yield job, entry.progress
            if job.state.ended:
                return
            await changed.wait()
            if self._closing:
                raise Draining("The gateway is about to stop; watch the job again in a moment.", retry_after_s=1)
            await asyncio.sleep(_SHORTEST_PAUSE_S)

    def close(self) -> None:
        """End all watching."""
        self._closing = True
        for entry in self._entries.values():
            _tell(entry)

    def _entry(self, ref: Ref) -> _Entry:
        entry = self._entries.get(ref)
        if entry is None:
            raise JobNotFound(f"There is no job {ref.id}.", field="job_id")
        return entry

    async def _read(self, ref: Ref) -> _Entry | None:
        try:
            request, _ = await self._store.get(keys.job(ref, "request.json"))
            state, tag = await self._state(ref)
            return _Entry(job_from_json(request, state), tag)
        except NotFound:
            return None
        except (ValueError, TypeError, KeyError):
            # Another release's job must not keep this one from starting.
            _log.exception("a job can't be read and is left alone", extra={"job_id": ref.id, "owner": ref.owner})
            return None

    async def _refresh(self, entry: _Entry) -> None:
        state, entry.tag = await self._state(entry.job.ref)
        entry.job = job_from_json(request_to_json(entry.job), state)
        _tell(entry)

    async def _state(self, ref: Ref) -> tuple[bytes | None, str | None]:
        try:
            return await self._store.get(keys.job(ref, "state.json"))
        except NotFound:
            return None, None

    async def _update(self, entry: _Entry, change: Change, token: int) -> Job:
        async with entry.writing:
            for _ in range(_TRIES):
                job = _changed(entry.job, change, token)
                if job == entry.job and entry.tag is not None:
                    return job
                job = replace(job, revision=entry.job.revision + 1)
                key, data = keys.job(job.ref, "state.json"), state_to_json(job)
                try:
                    entry.tag = await self._store.put(key, data, if_absent=entry.tag is None, if_match=entry.tag)
                except (WrongState, AlreadyExists):
                    await self._refresh(entry)
                    continue
                entry.job = job
                _tell(entry)
                return job
        raise WrongState(f"The job {entry.job.job_id} is being changed by somebody else; try again.")


def listed_by(job: Job) -> tuple[float, str, str]:
    """Sorts jobs of several owners by age; no two are equal."""
    return *job.order, job.owner


def _changed(job: Job, change: Change, token: int) -> Job:
    if token and job.fence > token:
        raise WrongState("Another gateway drives the job now.")
    changed = change(job)
    return replace(changed, fence=max(changed.fence, token))


def _tell(entry: _Entry) -> None:
    entry.changed.set()
    entry.changed = asyncio.Event()
