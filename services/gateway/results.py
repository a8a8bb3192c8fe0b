"""What can be had of a job: the result, its source, segments while it runs, a playlist, pictures, the quality report."""

import contextlib
from collections import OrderedDict
from collections.abc import AsyncGenerator
from dataclasses import dataclass

from services.common.errors import InvalidOption, NotFound, NotSupported, RangeOutOfBounds, WrongState
from services.common.formats import STILL
from services.common.metrics import GatewayMetrics
from services.common.plan import Plan
from services.gateway import keys
from services.gateway.book import JobBook
from services.gateway.cleaning import stored_plan
from services.gateway.jobs import Job, Result, State
from services.gateway.keys import Ref
from services.gateway.playlist import PlayablePart, init_bytes, playlist
from services.gateway.ports import ContainerFiles, Picture, QualityCheck
from services.gateway.report import report_from_json
from services.gateway.source import ARCHIVE, SourceIndex
from services.gateway.sources import Source, Sources
from services.gateway.store.base import Store

_HEAD_BYTES = 64 << 10
_KEPT_HEADS = 4096
_MAX_SIDE = 4096


@dataclass(frozen=True, slots=True, kw_only=True)
class Download:
    """A part of an object."""

    filename: str
    """For people."""

    media_type: str
    """For browsers."""

    size_bytes: int
    """Of the whole object."""

    sha256: str
    """Of the whole object; empty for a segment."""

    pieces: AsyncGenerator[bytes, None]
    """The part that was asked for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Playlist:
    """What can be played now."""

    m3u8: str
    """RFC 8216."""

    complete: bool
    """Nothing will be added."""

    segments: int
    """In the playlist."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Planned:
    job: Job
    plan: Plan
    segment_keys: tuple[str, ...]


class Results:
    """Everything that is read of a job. Methods raise JobNotFound, WrongState where it is too early or too late."""

    def __init__(
        self, *, book: JobBook, store: Store, sources: Sources, container: ContainerFiles, metrics: GatewayMetrics
    ) -> None:
        self._book = book
        self._store = store
        self._sources = sources
        self._container = container
        self._metrics = metrics
        self._heads: OrderedDict[tuple[str, int], int] = OrderedDict()

    async def result(self, ref: Ref, offset: int, length: int) -> Download:
        """The joined file. Raises RangeOutOfBounds."""
        result = await self._result_of(ref)
        pieces = await self._part(_result_key(ref, result), offset, length, result.size_bytes)
        return Download(
            filename=result.filename,
            media_type=result.media_type,
            size_bytes=result.size_bytes,
            sha256=result.sha256,
            pieces=pieces,
        )

    async def link(self, ref: Ref, *, of_result: bool, seconds: int) -> str | None:
        """An address from which anybody can read the joined file, or the source, for so long; None: the store has none.

        Raises:
            UploadNotFound.
        """
        if not of_result:
            source = await self._source(ref)
            name, kind, key = source.upload.filename, _media_type(source), keys.upload(source.upload.ref, "data")
        else:
            result = await self._result_of(ref)
            name, kind, key = result.filename, result.media_type, _result_key(ref, result)
        return await self._store.link(key, seconds=seconds, filename=name, media_type=kind)

    async def segment(self, ref: Ref, number: int, offset: int, length: int) -> Download:
        """A stored segment. Raises RangeOutOfBounds, and WrongState before it is stored."""
        planned = await self._planned(ref)
        if not 0 <= number < len(planned.segment_keys):
            raise RangeOutOfBounds(
                f"There is no segment {number}; the job has segments 0 to {len(planned.segment_keys) - 1}.", field="segment"
            )
        try:
            size = await self._store.size(planned.segment_keys[number])
        except NotFound as error:
            raise WrongState(f"Segment {number} is not restored yet; the playlist says which are.") from error
        pieces = await self._part(planned.segment_keys[number], offset, length, size)
        return Download(filename=f"{number}.mp4", media_type="video/mp4", size_bytes=size, sha256="", pieces=pieces)

    async def source(self, ref: Ref, offset: int, length: int) -> Download:
        """The upload. Raises RangeOutOfBounds, UploadNotFound."""
        source = await self._source(ref)
        upload = source.upload
        pieces = await self._part(keys.upload(upload.ref, "data"), offset, length, upload.size_bytes)
        return Download(
            filename=upload.filename,
            media_type=_media_type(source),
            size_bytes=upload.size_bytes,
            sha256=upload.sha256,
            pieces=pieces,
        )

    async def playlist(self, ref: Ref) -> Playlist:
        """The segments stored so far, without gaps. Raises NotSupported where the result is no video."""
        planned = await self._planned(ref)
        if planned.plan.container in STILL:
            raise NotSupported("Pictures can't be played; look at single frames, or download the result.")
        index, source = await self._index(ref), await self._source(ref)
        durations = [float((index.end_of(s.end - 1) - index.pts[s.first]) * source.info.time_base) for s in planned.plan.segments]
        parts: list[PlayablePart] = []
        for number, key in enumerate(planned.segment_keys):
            sizes = await self._sizes(key)
            if sizes is None:
                break
            parts.append(
                PlayablePart(uri=f"{number}.mp4", duration_s=durations[number], size_bytes=sizes[0], init_bytes=sizes[1])
            )
        complete = planned.job.state.ended or len(parts) == len(durations)
        return Playlist(m3u8=playlist(parts, longest_s=max(durations), complete=complete), complete=complete, segments=len(parts))

    async def picture(self, ref: Ref, *, of_result: bool, frame: int, max_side: int) -> Picture:
        """A frame, counted from the job's first one, as a PNG. Raises RangeOutOfBounds, InvalidOption."""
        if not 0 <= max_side <= _MAX_SIDE:
            raise InvalidOption(f"max_side is {max_side}; give 1 to {_MAX_SIDE}, or 0.", field="max_side")
        planned = await self._planned(ref)
        if not 0 <= frame < planned.plan.frames:
            raise RangeOutOfBounds(f"There is no frame {frame}; the last one is {planned.plan.frames - 1}.", field="frame")
        source = await self._source(ref)
        wanted = planned.plan.first + frame
        if of_result:
            return await self._result_picture(planned, source, wanted, max_side)
        size = planned.plan.restore.width, planned.plan.restore.height
        index = await self._index(ref)
        async with self._sources.file(source.upload.ref) as path:
            return await self._container.picture(path, source.info, index, wanted, size=size, max_side=max_side)

    async def report(self, ref: Ref) -> tuple[QualityCheck, ...]:
        """What was checked when the result was joined."""
        job = await self._book.look(ref)
        if job.result is None:
            # Its caller may have heard of the end from the gateway that drove it.
            job = await self._book.look(ref, latest=True)
        if job.result is None:
            raise WrongState(f"The job is {job.state} and has no report; {_instead(job.state)}")
        return report_from_json((await self._store.get(keys.job(ref, "report.json")))[0])

    async def _result_of(self, ref: Ref) -> Result:
        job = await self._book.look(ref)
        if job.result is None:
            # Its caller may have heard of the end from the gateway that drove it.
            job = await self._book.look(ref, latest=True)
        if job.result is None:
            raise WrongState(f"The job is {job.state} and has no result; {_instead(job.state)}")
        return job.result

    async def _result_picture(self, planned: _Planned, source: Source, wanted: int, max_side: int) -> Picture:
        segments = planned.plan.segments
        number = next(i for i, s in enumerate(segments) if s.first <= wanted < s.end)
        try:
            async with self._store.local_path(planned.segment_keys[number]) as path:
                return await self._container.segment_picture(
                    path, source.info, wanted - segments[number].first, max_side=max_side
                )
        except NotFound as error:
            raise WrongState(f"Frame {wanted - planned.plan.first} is not restored yet; watch the job's progress.") from error

    async def _planned(self, ref: Ref) -> _Planned:
        job = await self._book.look(ref)
        plan = await stored_plan(self._store, ref) if job.plan is not None else None
        if plan is None:
            raise WrongState(f"The job is {job.state} and has no plan yet; {_instead(job.state)}")
        found = [keys.segment(ref.owner, plan.span_key(span), s.name) for span in plan.spans for s in span.segments]
        return _Planned(job=job, plan=plan, segment_keys=tuple(found))

    async def _source(self, ref: Ref) -> Source:
        return await self._sources.look((await self._book.look(ref)).upload)

    async def _index(self, ref: Ref) -> SourceIndex:
        return await self._sources.job_index(ref, await self._source(ref), lambda _: None)

    async def _sizes(self, key: str) -> tuple[int, int] | None:
        """Bytes of a segment and of its beginning; None where it isn't stored."""
        try:
            size = await self._store.size(key)
        except NotFound:
            return None
        if (key, size) not in self._heads:
            async with contextlib.aclosing(self._store.read(key, 0, _HEAD_BYTES)) as pieces:
                head = b"".join([piece async for piece in pieces])
            self._heads[key, size] = init_bytes(head)
            if len(self._heads) > _KEPT_HEADS:
                self._heads.popitem(last=False)
        return size, self._heads[key, size]

    async def _part(self, key: str, offset: int, length: int, size: int) -> AsyncGenerator[bytes, None]:
        if not 0 <= offset <= size or length < 0:
            raise RangeOutOfBounds(f"The object has {size} bytes; offset {offset}, length {length} is outside.", field="offset")
        pieces = self._store.read(key, offset, length or None)
        return self._counted(pieces)

    async def _counted(self, pieces: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async with contextlib.aclosing(pieces):
            async for piece in pieces:
                self._metrics.download_bytes.inc(len(piece))
                yield piece


def _instead(state: State) -> str:
    return "retry it, or create another one." if state.ended else "wait until it has one."


def _result_key(ref: Ref, result: Result) -> str:
    return keys.job(ref, "result." + result.filename.rpartition(".")[2])


def _media_type(source: Source) -> str:
    names = {
        "matroska,webm": "video/x-matroska", "avi": "video/x-msvideo", "mpegts": "video/mp2t", ARCHIVE: "application/zip",
        "png_pipe": "image/png", "jpeg_pipe": "image/jpeg", "webp_pipe": "image/webp", "tiff_pipe": "image/tiff",
    }  # fmt: skip
    return "video/mp4" if "mp4" in source.info.container else names.get(source.info.container, "application/octet-stream")
