"""A job as it goes on, as server-sent events, until it has ended."""

import asyncio
import contextlib
import hashlib
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from services.common.errors import Draining, ServiceError
from services.gateway.jobs import Job
from services.gateway.progress import Progress
from services.gateway.rest.answers import NO_STORE, error_body
from services.gateway.rest.backend import Backend, mine
from services.gateway.rest.encoder import encode_video

_HEARTBEAT_S = 15.0
_RETRY_MS = 2000
_HEADERS = {**NO_STORE, "X-Accel-Buffering": "no"}


class Events:
    """The handler of /v1/videos/{video_id}/events."""

    def __init__(self, backend: Backend, *, heartbeat_s: float = _HEARTBEAT_S) -> None:
        """``heartbeat_s``: longest silence, so that proxies don't take the connection for dead."""
        self._backend = backend
        self._heartbeat_s = heartbeat_s

    async def watch(self, request: Request) -> Response:
        """GET /v1/videos/{video_id}/events"""
        ref = mine(request.path_params["video_id"])
        job = await self._backend.book.look(ref)
        if job.state.ended and request.headers.get("last-event-id") == _id(_data(job, self._backend.book.progress(ref))):
            # What stops an EventSource from connecting again.
            return Response(status_code=204, headers=NO_STORE)
        if request.method == "HEAD":
            return Response(media_type="text/event-stream", headers=_HEADERS)
        changes = self._backend.book.watch(ref)
        return StreamingResponse(self._events(changes), media_type="text/event-stream", headers=_HEADERS)

    async def _events(self, changes: AsyncGenerator[tuple[Job, Progress], None]) -> AsyncIterator[str]:
        yield f"retry: {_RETRY_MS}\n\n"
        async with contextlib.aclosing(changes):
            try:
                async for change in with_heartbeat(changes, self._heartbeat_s):
                    yield ":\n\n" if change is None else _event(*change)
            except Draining:
                # The client connects again, and finds another gateway or this one after its start.
                return
            except ServiceError as error:
                yield f"event: error\ndata: {json.dumps(error_body(error))}\n\n"


async def with_heartbeat(changes: AsyncGenerator[Any, None], pause_s: float) -> AsyncIterator[Any]:
    """What comes, and None after every ``pause_s`` without anything."""
    following: asyncio.Task[Any] | None = None
    try:
        while True:
            following = following or asyncio.ensure_future(_following(changes))
            await asyncio.wait({following}, timeout=pause_s)
            if not following.done():
                yield None
                continue
            found, following = following.result(), None
            if found is None:
                return
            yield found
    finally:
        if following is not None:
            following.cancel()
            await asyncio.wait({following})


def _following(changes: AsyncGenerator[Any, None]) -> Awaitable[Any]:
    return anext(changes, None)


def _event(job: Job, progress: Progress) -> str:
    name, data = "ended" if job.state.ended else "progress", _data(job, progress)
    return f"id: {_id(data)}\nevent: {name}\ndata: {data}\n\n"


def _data(job: Job, progress: Progress) -> str:
    return json.dumps(encode_video(job, progress))


def _id(data: str) -> str:
    """Another one for other data."""
    return hashlib.sha256(data.encode()).hexdigest()[:16]
