"""The gateway's side of the child processes that read and write containers."""

import asyncio
import bisect
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.common.channel import Message
from services.common.child import Child, ChildDied, Limits
from services.common.errors import InternalError, InvalidVideo
from services.common.formats import VIDEOS
from services.common.media import Packet
from services.gateway.ports import Joined, JoinTask, Picture, QualityCheck
from services.gateway.source import ARCHIVE, SourceIndex, SourceInfo, index_from_fields, info_fields, info_from_fields

_MODULE = "services.gateway.container.child"
# The end of a join moves the whole result once and reads it twice.
_JOIN_SILENCES = 30

Progress = Callable[[float], None]
"""Called with the fraction that is done."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContainerLimits:
    """What one child process may use."""

    memory_bytes: int
    """Address space."""

    cpu_s: int
    """CPU time."""

    silence_s: float
    """Longest time without a word of it."""

    processes: int
    """Such processes at a time, and half as many that look for cuts; those that send packets to workers are not counted."""

    max_pixels: int
    """Of a source frame; larger ones are not decoded."""


class Container:
    """Reads and writes container files. Every method raises InvalidVideo for a file that can't be read."""

    def __init__(self, limits: ContainerLimits) -> None:
        self._limits = limits
        self._free = asyncio.Semaphore(limits.processes)
        # Looking at every frame takes minutes, and somebody may wait for a probe.
        self._free_to_look = asyncio.Semaphore(max(1, limits.processes // 2))

    async def probe(self, path: Path) -> SourceInfo:
        """What the file says of itself; decodes its first frame."""
        async with self._asked("probe", path=str(path), max_pixels=self._limits.max_pixels) as child:
            return info_from_fields((await self._answer(child)).fields)

    async def index(self, path: Path, info: SourceInfo, on_progress: Progress | None = None) -> SourceIndex:
        """All frames of the file; reads it once."""
        async with self._asked(_of_source("index", info), path=str(path), info=info_fields(info)) as child:
            while True:
                message = await self._answer(child)
                if message.kind == "index":
                    return index_from_fields(message.fields)
                if on_progress is not None:
                    on_progress(float(message.fields["fraction"]))

    async def read(self, path: Path, info: SourceInfo, index: SourceIndex, first: int, end: int) -> AsyncGenerator[Packet, None]:
        """The packets that decoding the frames [first, end) needs, in decoding order."""
        fields = {"path": str(path), "stream": info.stream, **_wanted(index, first, end)}
        async with self._child(_of_source("read", info), fields) as child:
            while (message := await self._answer(child)).kind == "packet":
                yield _packet(message)

    async def cuts(
        self, path: Path, info: SourceInfo, index: SourceIndex, first: int, end: int
    ) -> AsyncGenerator[tuple[int, bool], None]:
        """Frames of [first, end) that begin a shot, with True; now and then the one that is looked at, with False."""
        start = index.keyframe_before(first).frame
        fields = {"pixels": info.codec.width * info.codec.height, **_wanted(index, first, end)}
        if index.by_order:
            fields["first_number"] = first - start
        async with (
            self._free_to_look,
            self._child(_of_source("cuts", info), {"path": str(path), "stream": info.stream, **fields}) as child,
        ):
            yield first, False
            while (message := await self._answer(child)).kind != "end":
                at = int(message.fields["at"])
                frame = start + at if index.by_order else bisect.bisect_left(index.pts, at)
                if first < frame < end:
                    yield frame, message.kind == "cut"

    async def picture(
        self, path: Path, info: SourceInfo, index: SourceIndex, frame: int, *, size: tuple[int, int], max_side: int
    ) -> Picture:
        """A frame of the source, scaled to ``size`` and then to at most ``max_side``, turned as a player would."""
        wanted = _wanted(index, frame, frame + 1)
        order = frame - index.keyframe_before(frame).frame if index.by_order else None
        return await self._picture(
            _of_source("picture", info), path, info, {"stream": info.stream, "order": order, **wanted}, size, max_side
        )

    async def segment_picture(self, path: Path, info: SourceInfo, number: int, *, max_side: int) -> Picture:
        """The frame ``number`` of a segment file, turned as a player would turn the source."""
        wanted = {"stream": 0, "order": number, "keyframe": [0, None, None], "end_packet": 1 << 30}
        return await self._picture("picture", path, info, wanted, (0, 0), max_side)

    async def join(
        self, task: JoinTask, segment: Callable[[int], AbstractAsyncContextManager[Path]], on_progress: Progress
    ) -> Joined:
        """Write the result; ``segment`` gives the file of the segment with a number.

        Raises:
            InternalError: it can't be written; ``field`` is the number of the segment that is to blame, if one is.
            StoreFull: no space.
        """
        fields = {name: getattr(task, name) for name in JoinTask.__slots__}
        fields |= {"source": str(task.source), "output": str(task.output), "time_base": str(task.time_base)}
        kind = "join" if task.container in VIDEOS else "pictures"
        try:
            async with (
                self._asked(kind, **fields) as child,
                contextlib.AsyncExitStack() as held,
            ):
                while (message := await self._answer(child, _JOIN_SILENCES)).kind != "joined":
                    if message.kind == "progress":
                        on_progress(float(message.fields["fraction"]))
                        continue
                    await held.aclose()
                    path = await held.enter_async_context(segment(int(message.fields["number"])))
                    await child.send("path", path=str(path))
        except ChildDied as error:
            raise InternalError(f"The result could not be joined: {error}; retry the job.") from error
        checks = tuple(QualityCheck(**c) for c in message.fields.pop("checks"))
        return Joined(checks=checks, **message.fields)

    async def _picture(
        self, kind: str, path: Path, info: SourceInfo, wanted: dict[str, Any], size: tuple[int, int], max_side: int
    ) -> Picture:
        fields = {"width": size[0], "height": size[1], "max_side": max_side, "matrix": info.display_matrix}
        async with self._asked(kind, path=str(path), **wanted, **fields) as child:
            message = await self._answer(child)
            return Picture(data=bytes(message.payload), **message.fields)

    @contextlib.asynccontextmanager
    async def _asked(self, kind: str, **fields: Any) -> AsyncIterator[Child]:
        async with self._free, self._child(kind, fields) as child:
            yield child

    @contextlib.asynccontextmanager
    async def _child(self, kind: str, fields: dict[str, Any]) -> AsyncIterator[Child]:
        limits = Limits(memory_bytes=self._limits.memory_bytes, cpu_s=self._limits.cpu_s)
        # One thread for arithmetic libraries: each reserves address space.
        environment = {"SEEDVR2_SERVICE": "gateway", "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        async with await Child.start(_MODULE, limits=limits, environment=environment) as child:
            await self._ready(child)
            try:
                await child.send(kind, **fields)
                yield child
            except ChildDied as error:
                if kind in ("join", "pictures"):
                    raise
                raise InvalidVideo(
                    f"The file can't be read: the process that read it failed ({error}). It is damaged, or too large for it."
                ) from error

    async def _ready(self, child: Child) -> None:
        try:
            await child.receive()
        except ChildDied as error:
            raise InternalError(f"A process that reads files could not start: {error}.") from error

    async def _answer(self, child: Child, silences: int = 1) -> Message:
        limit_s = silences * self._limits.silence_s
        try:
            async with asyncio.timeout(limit_s):
                return await child.receive()
        except TimeoutError as error:
            raise InvalidVideo(f"Reading the file made no progress for {limit_s:g} s; it is damaged.") from error


def _of_source(operation: str, info: SourceInfo) -> str:
    return f"archive_{operation}" if info.container == ARCHIVE else operation


def _wanted(index: SourceIndex, first: int, end: int) -> dict[str, Any]:
    keyframe = index.keyframe_before(first)
    fields: dict[str, Any] = {"keyframe": [keyframe.packet, keyframe.pts, keyframe.dts]}
    if index.by_order:
        following = index.keyframe_after(end)
        return {**fields, "end_packet": following.packet if following else 1 << 30}
    return {**fields, "first_pts": index.pts[first], "last_pts": index.pts[end - 1], "frames": end - first}


def _packet(message: Message) -> Packet:
    fields = message.fields
    return Packet(
        pts=fields["pts"],
        dts=fields["dts"],
        duration=fields["duration"],
        keyframe=fields["keyframe"],
        data=bytes(message.payload),
        side_data={name: bytes.fromhex(data) for name, data in fields["side_data"].items()},
    )
