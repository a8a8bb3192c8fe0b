"""What a gateway remembers of jobs: those that have not ended and some that have as a whole, of all others what lists need."""

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from services.gateway.jobs import Job, State
from services.gateway.keys import Ref
from services.gateway.progress import Progress

# Tells sources apart; a list that is too long costs a look, no more.
_SOURCE_CHARACTERS = 16


@dataclass(slots=True)
class Entry:
    """A job in memory."""

    job: Job
    """As it was read, or written, last."""

    tag: str | None
    """Of its state in the store; None before the first one is written."""

    seen: float
    """When it was read; monotonic seconds."""

    driven: bool = False
    """This gateway drives it."""

    progress: Progress = field(default_factory=Progress)
    """What is being done for it."""

    told: Progress = field(default_factory=Progress)
    """What other gateways can read of that."""

    changed: asyncio.Event = field(default_factory=asyncio.Event)
    """Set, and replaced, at the next change."""

    writing: asyncio.Lock = field(default_factory=asyncio.Lock)
    """One change at a time."""

    def tell(self) -> None:
        """Wake whoever waits for a change."""
        self.changed.set()
        self.changed = asyncio.Event()


class Brief(NamedTuple):
    """What lists need of a job."""

    order: tuple[float, str, str]
    """Its place, see :func:`listed_by`."""

    state: State
    """Where it is."""

    source: str
    """Equal for jobs of one source."""


class JobMemory:
    """Jobs by their names."""

    def __init__(self, kept: int) -> None:
        """``kept``: ended jobs that stay as a whole."""
        self._kept = kept
        self._entries: dict[Ref, Entry] = {}
        self._ended: OrderedDict[Ref, None] = OrderedDict()
        self._briefs: dict[Ref, Brief] = {}

    def get(self, ref: Ref) -> Entry | None:
        """A job, if it is there as a whole."""
        return self._entries.get(ref)

    def entries(self) -> list[Entry]:
        """All that are there as a whole."""
        return list(self._entries.values())

    def briefs(self, owner: str | None = None) -> Iterator[tuple[Ref, Brief]]:
        """All jobs of an owner, or of everybody."""
        for ref, entry in self._entries.items():
            if owner in (None, ref.owner):
                yield ref, brief_of(entry.job)
        for ref, brief in self._briefs.items():
            if owner in (None, ref.owner):
                yield ref, brief

    def unknown(self, refs: Collection[Ref], *, whole: bool) -> set[Ref]:
        """Those of which nothing is known, or with ``whole`` not everything."""
        return {ref for ref in refs if ref not in self._entries and (whole or ref not in self._briefs)}

    def keep(self, entry: Entry) -> Entry:
        """Remember a job, and of the one that ended first, if there are too many, only what lists need."""
        ref = entry.job.ref
        self._entries[ref] = entry
        self._briefs.pop(ref, None)
        self._ended.pop(ref, None)
        if entry.job.state.ended:
            self._ended[ref] = None
        while len(self._ended) > self._kept:
            oldest, _ = self._ended.popitem(last=False)
            self._briefs[oldest] = brief_of(self._entries.pop(oldest).job)
        return entry

    def forget(self, ref: Ref) -> None:
        """A job that is gone."""
        self._ended.pop(ref, None)
        self._briefs.pop(ref, None)
        entry = self._entries.pop(ref, None)
        if entry is not None:
            entry.tell()


def listed_by(job: Job) -> tuple[float, str, str]:
    """Sorts jobs of several owners by age; no two are equal."""
    return *job.order, job.owner


def brief_of(job: Job) -> Brief:
    """What lists need of a job."""
    return Brief(order=listed_by(job), state=job.state, source=job.source_sha256[:_SOURCE_CHARACTERS])
