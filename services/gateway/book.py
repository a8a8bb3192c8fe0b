"""The book of jobs: the store is the truth, memory a cache; and whoever watches a job is told of each change.

Several gateways may share a store. What this one drives it knows at first hand; what others do is read again when it is asked for
and what is known is older than ``fresh_s``.
"""

import asyncio
import contextlib
import logging
import time
from collections import defaultdict
from collections.abc import AsyncGenerator, Collection, Iterable
from dataclasses import dataclass, field, replace

from services.common.errors import AlreadyExists, Draining, JobNotFound, NewerRelease, NotFound, WrongState
from services.gateway import jobs, records
from services.gateway.jobs import Change, Job, State
from services.gateway.keys import Ref
from services.gateway.memory import Entry, JobMemory, brief_of, listed_by
from services.gateway.options import is_id
from services.gateway.progress import Progress
from services.gateway.records import Stored
from services.gateway.store.base import Store
from services.gateway.tasks import for_each

_log = logging.getLogger(__name__)
# A person sees no more than this, and a stream shouldn't carry more.
_SHORTEST_PAUSE_S = 0.2
_TRIES = 5
_READ_AT_ONCE = 16


@dataclass(slots=True)
class _Listing:
    """What an owner has, as it was listed last."""

    listed: float = -1e9
    reading: asyncio.Lock = field(default_factory=asyncio.Lock)


class JobBook:
    """All jobs. Methods raise JobNotFound for one that is not there, StoreUnavailable where the store fails."""

    def __init__(self, store: Store, *, fresh_s: float = 1.0, kept: int = 1000) -> None:
        """``fresh_s``: seconds for which what was read counts; ``kept``: ended jobs that memory has whole."""
        self._store = store
        self._fresh_s = fresh_s
        self._memory = JobMemory(kept)
        self._listings: defaultdict[str, _Listing] = defaultdict(_Listing)
        self._unreadable: set[Ref] = set()
        self._closing = False

    # ---- what there is ----

    async def scan(self) -> list[Ref]:
        """Read jobs that must be looked after and that memory doesn't have; returns all that must, also remains of some."""
        marked = await records.marked(self._store)
        await self._learn_all(self._memory.unknown(marked, whole=True))
        return marked

    async def catch_up(self, owner: str) -> None:
        """Learn which jobs an owner has by now, and how they are."""
        listing = self._listings[owner]
        async with listing.reading:
            if time.monotonic() - listing.listed > self._fresh_s:
                started = time.monotonic()
                await self._list(owner)
                listing.listed = started

    async def load(self) -> None:
        """The same for everybody."""
        for owner in await records.owners(self._store):
            await self.catch_up(owner)

    async def page(
        self, owner: str | None, states: Collection[State] = (), *, after: tuple[float, str, str] | None = None,
        size: int = 1000, oldest_first: bool = False,
    ) -> list[Job]:  # fmt: skip
        """Jobs of an owner, or of all, in some states, or in any, that follow ``after``; newest first."""
        await (self.load() if owner is None else self.catch_up(owner))
        briefs = [(b.order, ref) for ref, b in self._memory.briefs(owner) if not states or b.state in states]
        found = sorted(briefs, reverse=not oldest_first)
        if after is not None:
            found = [(order, ref) for order, ref in found if (order > after if oldest_first else order < after)]
        entries = await for_each([ref for _, ref in found[:size]], self._known, at_once=_READ_AT_ONCE)
        return [entry.job for entry in entries if entry is not None]

    def active(self) -> list[Job]:
        """Jobs that have not ended, as far as this gateway knows; oldest first."""
        return sorted((e.job for e in self._memory.entries() if not e.job.state.ended), key=listed_by)

    def driven(self) -> list[Job]:
        """Jobs that this gateway drives."""
        return [e.job for e in self._memory.entries() if e.driven]

    async def users_of(self, upload: Ref) -> list[str]:
        """Ids of jobs that still need an upload."""
        await self.scan()
        users = [job.ref for job in self.active() if job.upload == upload]
        await for_each(users, self.seek, at_once=_READ_AT_ONCE)
        return [job.job_id for job in self.active() if job.upload == upload]

    async def sharing(self, job: Job) -> list[Ref]:
        """Other jobs of the owner with the same source."""
        await self.catch_up(job.owner)
        source = brief_of(job).source
        return [ref for ref, brief in self._memory.briefs(job.owner) if brief.source == source and ref != job.ref]

    # ---- one job ----

    async def create(self, job: Job) -> Job:
        """Write a new job down; from then on it is never lost.

        Raises:
            AlreadyExists: the id is taken.
        """
        # Marked first: a job that was accepted and that nobody looks after would be lost.
        await records.mark(self._store, job.ref)
        await records.write_request(self._store, job)
        known = self._memory.get(job.ref)
        if known is None or known.job.created_at != job.created_at:
            self._memory.keep(Entry(job, None, time.monotonic()))
        # Otherwise somebody who looked after marked jobs has found it already, and perhaps drives it.
        return job

    def get(self, ref: Ref) -> Job:
        """A job as this gateway knows it."""
        return self._entry(ref).job

    def find(self, ref: Ref) -> Job | None:
        """The same, or None."""
        entry = self._memory.get(ref)
        return entry.job if entry else None

    def progress(self, ref: Ref) -> Progress:
        """What is being done for a job, as this gateway knows it."""
        entry = self._memory.get(ref)
        return entry.progress if entry else Progress()

    async def look(self, ref: Ref, *, latest: bool = False) -> Job:
        """A job as it is now, whoever drives it; ``latest``: read now, however fresh memory is."""
        return (await self._look(ref, latest=latest)).job

    async def seek(self, ref: Ref) -> Job | None:
        """The latest of a job, or None."""
        with contextlib.suppress(JobNotFound):
            return await self.look(ref, latest=True)
        return None

    async def update(self, ref: Ref, change: Change, *, token: int = 0) -> Job:
        """Write a change down, made to the newest state; ``token`` is the fence of the job as it was claimed.

        Raises:
            WrongState: the change isn't allowed in that state, or a later lease has written.
            NewerRelease: a later release must make it.
        """
        # A caller that goes away must not leave memory behind the store.
        return await asyncio.shield(asyncio.ensure_future(self._update(self._entry(ref), change, token)))

    async def claim(self, ref: Ref, token: int) -> Job:
        """Shut out whoever drove the job before: from now on only writes with the ``fence`` of the job returned are taken."""
        entry = await self._look(ref, latest=True)
        if entry.job.state.ended:
            return entry.job
        job = await self.update(ref, lambda job: jobs.claimed(job, token))
        await records.mark(self._store, ref)
        return job

    def drive(self, ref: Ref, driven: bool) -> None:
        """Whether this gateway drives a job."""
        entry = self._memory.get(ref)
        if entry is not None:
            entry.driven = driven
            entry.tell()

    def show(self, ref: Ref, progress: Progress) -> None:
        """Tell watchers what is being done; see :meth:`share`."""
        entry = self._memory.get(ref)
        if entry is not None:
            entry.progress = progress
            entry.tell()

    def is_shared(self, ref: Ref) -> bool:
        """Whether other gateways can read what is being done for a job."""
        entry = self._memory.get(ref)
        return entry is None or entry.told == entry.progress

    async def share(self, ref: Ref) -> None:
        """Tell other gateways what is being done for a job."""
        entry = self._entry(ref)
        told = entry.progress
        await records.write_progress(self._store, entry.job, told)
        entry.told = told

    def leave(self, ref: Ref) -> None:
        """From now on a job is shown, and changed by later releases only: it has what this one doesn't know."""
        entry = self._entry(ref)
        entry.job = replace(entry.job, newer=True)

    def forget(self, ref: Ref) -> None:
        """Drop a job that was deleted."""
        self._memory.forget(ref)

    async def watch(self, ref: Ref) -> AsyncGenerator[tuple[Job, Progress], None]:
        """The job now and after each change, until it has ended.

        Raises:
            Draining: this server is about to stop.
        """
        seen: tuple[Job, Progress] | None = None
        while True:
            entry = await self._look(ref)
            if seen is None and entry.job.state.ended:
                # Its watcher may have heard from another gateway that it was retried.
                entry = await self._look(ref, latest=True)
            changed, now = entry.changed, (entry.job, entry.progress)
            if now != seen:
                yield now
                seen = now
            if now[0].state.ended:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0 if self._closing else self._fresh_s):
                    await changed.wait()
            if self._closing:
                raise Draining("The gateway is about to stop; watch the job again in a moment.", retry_after_s=1)
            await asyncio.sleep(_SHORTEST_PAUSE_S)

    def close(self) -> None:
        """End all watching."""
        self._closing = True
        for entry in self._memory.entries():
            entry.tell()

    # ---- memory and store ----

    def _entry(self, ref: Ref) -> Entry:
        entry = self._memory.get(ref)
        if entry is None:
            raise _no_job(ref)
        return entry

    async def _known(self, ref: Ref) -> Entry | None:
        return self._memory.get(ref) or await self._learn(ref)

    async def _look(self, ref: Ref, *, latest: bool = False) -> Entry:
        entry, asked = self._memory.get(ref), time.monotonic()
        if entry is None:
            entry = await self._learn(ref) if is_id(ref.id) else None
            if entry is None:
                raise _no_job(ref)
        elif latest or not (entry.driven or asked - entry.seen < self._fresh_s):
            async with entry.writing:
                # Others may have asked for the same.
                if entry.seen < asked:
                    await self._renew(entry)
        return entry

    async def _list(self, owner: str) -> None:
        before = {ref for ref, _ in self._memory.briefs(owner)}
        marked = await records.marked(self._store, owner)
        there = await records.job_refs(self._store, owner)
        for ref in before.difference(there):
            self.forget(ref)
        # Of jobs that have ended only those change that are retried, and these are marked.
        await self._learn_all(self._memory.unknown(there, whole=False) | self._memory.unknown(marked, whole=True))
        moving = {ref for ref in marked if self._memory.get(ref)} | {job.ref for job in self.active() if job.owner == owner}
        await for_each(moving, self._look_if_there, at_once=_READ_AT_ONCE)

    async def _look_if_there(self, ref: Ref) -> None:
        with contextlib.suppress(JobNotFound):
            await self._look(ref)

    async def _learn_all(self, refs: Iterable[Ref]) -> None:
        await for_each(list(refs), self._learn, at_once=_READ_AT_ONCE)

    async def _learn(self, ref: Ref) -> Entry | None:
        stored = await self._read(ref)
        known = self._memory.get(ref)
        if stored is None or known is not None:
            return known
        entry = Entry(stored.job, stored.tag, time.monotonic())
        entry.progress = await self._progress(entry)
        # Somebody else may have asked for the same meanwhile.
        return self._memory.get(ref) or self._memory.keep(entry)

    async def _read(self, ref: Ref) -> Stored | None:
        try:
            stored = await records.read_job(self._store, ref)
        except ValueError:
            # Another release's job must not keep this one from working.
            if ref not in self._unreadable:
                _log.exception("a job can't be read and is left alone", extra={"job_id": ref.id, "owner": ref.owner})
                self._unreadable.add(ref)
            return None
        return None if stored is None or stored.job.deleting else stored

    async def _renew(self, entry: Entry) -> None:
        """Bring an entry up to date; its lock is held."""
        now = time.monotonic()
        try:
            stored = await records.read_again(self._store, entry.job)
        except ValueError:
            stored = None
        if stored is None or stored.job.deleting:
            self.forget(entry.job.ref)
            raise _no_job(entry.job.ref)
        job = replace(stored.job, newer=stored.job.newer or entry.job.newer)
        changed = job != entry.job
        entry.job, entry.tag, entry.seen = job, stored.tag, now
        progress = await self._progress(entry)
        if changed or progress != entry.progress:
            entry.progress = progress
            self._memory.keep(entry)
            entry.tell()

    async def _progress(self, entry: Entry) -> Progress:
        if entry.driven or entry.job.state is State.SUCCEEDED or (entry.job.state.ended and entry.progress.frames_total):
            return entry.progress
        return await records.read_progress(self._store, entry.job)

    async def _update(self, entry: Entry, change: Change, token: int) -> Job:
        async with entry.writing:
            for _ in range(_TRIES):
                _check_known(entry.job)
                job = _changed(entry.job, change, token)
                if job == entry.job and entry.tag is not None:
                    return job
                job = replace(job, revision=entry.job.revision + 1)
                try:
                    entry.tag = await records.write_state(self._store, job, entry.tag)
                except (WrongState, AlreadyExists, NotFound):
                    await self._renew(entry)
                    continue
                entry.job, entry.seen = job, time.monotonic()
                self._memory.keep(entry)
                entry.tell()
                return job
        raise WrongState(f"The job {entry.job.job_id} is being changed by somebody else; try again.")


def _changed(job: Job, change: Change, token: int) -> Job:
    if token and job.fence > token:
        raise WrongState("Another gateway drives the job now.")
    changed = change(job)
    return replace(changed, fence=max(changed.fence, token))


def _check_known(job: Job) -> None:
    if job.newer:
        text = f"The job {job.job_id} is in the hands of a later release; this server shows it and can't change it. Ask again."
        raise NewerRelease(text, retry_after_s=1)


def _no_job(ref: Ref) -> JobNotFound:
    return JobNotFound(f"There is no job {ref.id}.", field="job_id")
