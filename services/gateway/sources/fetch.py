"""Fetching: a source somewhere else becomes an upload of its job; where it broke off, this gateway or another one goes on."""

import asyncio
import contextlib
import json
import logging
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from dataclasses import dataclass

from services.common.errors import ChunkOutOfOrder, NotFound, ServiceError, TooLarge, Unavailable
from services.common.metrics import GatewayMetrics
from services.gateway import keys
from services.gateway.jobs import Job
from services.gateway.sources.remote import Remote, Stream
from services.gateway.store.base import Store
from services.gateway.uploads import Finish, Upload, Uploads

_log = logging.getLogger(__name__)
_PIECE_BYTES = 1 << 20
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.1, 60.0
_SCHEMA_VERSION = 1

OnFetched = Callable[[int, int], None]
"""Called with bytes fetched, and bytes in all, 0: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FetchLimits:
    """How long fetching may take."""

    retry_s: float
    """Without a new byte."""

    max_s: float
    """In all."""

    max_bytes: int
    """Of a source."""


class Fetcher:
    """Brings sources into the store."""

    def __init__(self, *, uploads: Uploads, store: Store, limits: FetchLimits, metrics: GatewayMetrics) -> None:
        self._uploads = uploads
        self._store = store
        self._limits = limits
        self._metrics = metrics

    async def fetch(self, job: Job, remote: Remote, on_fetched: OnFetched) -> Upload:
        """The upload that a job's source has become.

        Raises:
            InvalidInput: it can't be had. TooLarge, StoreFull: it has more bytes than allowed, or than fit.
            Unavailable: nothing came for too long.
        """
        upload = await self._uploads.create(job.upload, job.filename, 0)
        if upload.complete:
            return upload
        try:
            async with asyncio.timeout(self._limits.max_s):
                return await self._until_complete(job, remote, on_fetched)
        except TimeoutError as error:
            raise Unavailable(f"Fetching the source took longer than {self._limits.max_s:.0f} s; upload it instead.") from error

    async def _until_complete(self, job: Job, remote: Remote, on_fetched: OnFetched) -> Upload:
        since, best, pause_s = time.monotonic(), 0, _FIRST_PAUSE_S
        while True:
            try:
                return await self._go_on(job, remote, on_fetched)
            except (Unavailable, ChunkOutOfOrder) as error:
                kept = (await self._uploads.get(job.upload)).received_bytes
                if kept > best:
                    since, best, pause_s = time.monotonic(), kept, _FIRST_PAUSE_S
                await self._pause(error, since, pause_s)
                pause_s = min(2 * pause_s, _LONGEST_PAUSE_S)

    async def _pause(self, error: ServiceError, since: float, pause_s: float) -> None:
        pause_s = max(pause_s, min(error.retry_after_s or 0.0, _LONGEST_PAUSE_S))
        if time.monotonic() + pause_s - since > self._limits.retry_s:
            raise Unavailable(f"The source can't be fetched: {error.message} Retry the job later.") from error
        _log.warning("a source is fetched again from where it broke off", extra={"detail": error.message, "pause_s": pause_s})
        await asyncio.sleep(pause_s)

    async def _go_on(self, job: Job, remote: Remote, on_fetched: OnFetched) -> Upload:
        upload, tag = await self._uploads.get(job.upload), await self._known_tag(job)
        async with remote.open(upload.received_bytes if tag else 0, tag) as stream:
            self._check_size(stream)
            if stream.offset != upload.received_bytes:
                await self._uploads.empty(job.upload)
            if stream.tag != tag:
                await self._store.put(_key(job), json.dumps({"schema_version": _SCHEMA_VERSION, "tag": stream.tag}).encode())
            async with contextlib.aclosing(self._messages(stream, on_fetched)) as messages:
                return await self._uploads.write(job.upload, stream.offset, messages)

    def _check_size(self, stream: Stream) -> None:
        if stream.size_bytes > self._limits.max_bytes:
            raise TooLarge(
                f"The source has {stream.size_bytes} bytes; at most {self._limits.max_bytes} are taken here. Make it smaller."
            )

    async def _messages(self, stream: Stream, on_fetched: OnFetched) -> AsyncGenerator[bytes | Finish, None]:
        done = stream.offset
        async with contextlib.aclosing(_of_one_size(stream.pieces)) as pieces:
            async for piece in pieces:
                done += len(piece)
                self._metrics.fetched_bytes.inc(len(piece))
                yield piece
                on_fetched(done, stream.size_bytes)
        if stream.size_bytes and done != stream.size_bytes:
            raise Unavailable(f"{done} of {stream.size_bytes} bytes came.")
        yield Finish(sha256="")

    async def _known_tag(self, job: Job) -> str:
        try:
            return str(json.loads((await self._store.get(_key(job)))[0])["tag"])
        except NotFound:
            return ""


def _key(job: Job) -> str:
    return keys.job(job.ref, "fetch.json")


async def _of_one_size(pieces: AsyncIterator[bytes]) -> AsyncGenerator[bytes, None]:
    """The same bytes in pieces that are worth a write each; none is lost where they break off."""
    kept = bytearray()
    try:
        async for piece in pieces:
            kept += piece
            while len(kept) >= _PIECE_BYTES:
                yield bytes(kept[:_PIECE_BYTES])
                del kept[:_PIECE_BYTES]
    except Unavailable:
        yield bytes(kept)
        raise
    if kept:
        yield bytes(kept)
