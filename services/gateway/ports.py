"""What the use cases ask of the world; ``__main__`` chooses who answers."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Protocol

from services.common.fleet import WorkerStatus
from services.common.media import Packet, SpanTask
from services.common.plan import Segment
from services.gateway.keys import Ref
from services.gateway.source import SourceIndex, SourceInfo

OnSegment = Callable[[Segment, bytes], Awaitable[None]]
"""Stores a segment; the worker is told when it returns."""

OnStage = Callable[[str, int, float], None]
"""Called with a stage, the frames that left it, and the seconds since the last call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerView:
    """A worker as the gateway sees it."""

    address: str
    """Where it is."""

    pool: str
    """As it says, or as it is listed."""

    status: WorkerStatus | None
    """Its last answer; None before the first one."""

    lost: bool
    """It doesn't answer now."""

    detail: str = ""
    """Why it doesn't."""

    known_as: str = ""
    """starting, draining or gone, where whoever finds workers knows better than the worker itself; empty: nothing."""

    @property
    def state(self) -> str:
        """starting, ready, busy, draining, broken, lost or gone."""
        if self.known_as == "gone":
            return self.known_as
        if self.status is None or self.lost:
            return self.known_as or "lost"
        return self.known_as if self.known_as and self.status.state in ("ready", "busy") else self.status.state


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanOutcome:
    """What a worker says when a span is done."""

    frames: int
    """Restored."""

    concealed_frames: int
    """Of these, not decodable: they repeat the one before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JoinTask:
    """How to make a result of segments."""

    source: Path
    """The source file."""

    output: Path
    """The file to write."""

    container: str
    """One of FORMATS."""

    time_base: Fraction
    """Of ``pts``."""

    pts: tuple[int, ...]
    """Of each frame, by the source's clock."""

    last_duration: int
    """Ticks that the last frame is shown."""

    shift: int
    """Ticks to subtract from the source's clock."""

    cut: bool
    """Whether other streams begin with the first frame; else they are copied from their beginning."""

    end: int | None
    """Tick at which other streams end; None: copied to their end."""

    counts: tuple[int, ...]
    """Frames of each segment."""

    copied: tuple[int, ...]
    """Indices of the source's streams to copy."""

    display_matrix: tuple[int, ...]
    """How a player turns the picture."""

    image: bool = False
    """The source is a picture, whose colour profile is kept."""

    archive: bool = False
    """The source is an archive of pictures, without other streams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QualityCheck:
    """Something that was compared when a result was joined."""

    name: str
    """What."""

    passed: bool
    """Whether it is as it should be."""

    detail: str
    """A sentence for people."""

    value: float
    """A number that belongs to it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Joined:
    """A result that was written, and read again."""

    frames: int
    """Counted in the file."""

    size_bytes: int
    """Of the file."""

    sha256: str
    """Of the file."""

    checks: tuple[QualityCheck, ...]
    """What was compared."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A frame as a PNG."""

    data: bytes
    """The PNG."""

    width: int
    """Pixels."""

    height: int
    """Pixels."""


class Workers(Protocol):
    """The inference pods."""

    def views(self) -> list[WorkerView]:
        """All that are known."""

    def on_change(self, listener: Callable[[], None]) -> None:
        """Call ``listener`` whenever a view changes."""

    def suspect(self, address: str) -> None:
        """Count a worker as lost until it answers again."""

    async def restore(
        self, address: str, task: SpanTask, packets: AsyncIterable[Packet], on_segment: OnSegment, on_stage: OnStage
    ) -> SpanOutcome:
        """Have one span restored. Raises what the worker raises, and Unavailable where it is gone."""


class ContainerFiles(Protocol):
    """Reading and writing container files."""

    async def probe(self, path: Path) -> SourceInfo:
        """What a file says of itself."""

    async def index(self, path: Path, info: SourceInfo, on_progress: Callable[[float], None] | None = None) -> SourceIndex:
        """All its frames."""

    def read(self, path: Path, info: SourceInfo, index: SourceIndex, first: int, end: int) -> AsyncGenerator[Packet, None]:
        """Packets for the frames [first, end)."""

    def cuts(
        self, path: Path, info: SourceInfo, index: SourceIndex, first: int, end: int
    ) -> AsyncGenerator[tuple[int, bool], None]:
        """Frames of [first, end) that begin a shot, with True; now and then how far it is, with False."""

    async def picture(
        self, path: Path, info: SourceInfo, index: SourceIndex, frame: int, *, size: tuple[int, int], max_side: int
    ) -> Picture:
        """A frame of the source."""

    async def segment_picture(self, path: Path, info: SourceInfo, number: int, *, max_side: int) -> Picture:
        """A frame of a segment."""

    async def join(
        self, task: JoinTask, segment: Callable[[int], AbstractAsyncContextManager[Path]], on_progress: Callable[[float], None]
    ) -> Joined:
        """Write a result."""


class Lease(Protocol):
    """The right to drive a job."""

    @property
    def ref(self) -> Ref:
        """Which job."""

    @property
    def token(self) -> int:
        """Larger than that of every earlier lease of the job."""

    @property
    def lost(self) -> asyncio.Event:
        """Set when it can't be held any more; whoever drives the job stops at once."""


class Leases(Protocol):
    """Who drives a job."""

    async def acquire(self, ref: Ref) -> Lease | None:
        """The lease, or None while somebody else has it; a call that is cancelled holds nothing. Raises Unavailable."""

    async def release(self, lease: Lease, *, forget: bool = False) -> None:
        """Give it back; ``forget`` where its job is gone. One that was lost is fine."""

    async def jobs(self) -> list[Ref]:
        """Which have a lease, whoever has it; also jobs that are gone. Raises Unavailable."""

    async def freed(self, within_s: float) -> None:
        """Return when jobs may have lost their driver, or after ``within_s`` seconds."""
