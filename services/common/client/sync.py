"""The client for programs without an event loop: the same methods, run by the same code in a loop of its own."""

import asyncio
import contextlib
import functools
import threading
import time
import types
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from services.common.client.calls import Reading
from services.common.client.gateway import GatewayClient
from services.common.errors import DeadlinePassed
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb

P = ParamSpec("P")
T = TypeVar("T")
SyncReading = tuple[pb.ObjectInfo, Iterator[bytes]]
"""What an object is as a whole, and the pieces of the part that was asked for."""

_END: Any = object()


def _blocking(
    method: Callable[Concatenate[GatewayClient, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate["SyncGatewayClient", P], T]:
    @functools.wraps(method)
    def call(self: "SyncGatewayClient", /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._wait(method(self._client, *args, **kwargs))

    return call


def _iterating(
    method: Callable[Concatenate[GatewayClient, P], AsyncGenerator[T, None]],
) -> Callable[Concatenate["SyncGatewayClient", P], Iterator[T]]:
    @functools.wraps(method)
    def call(self: "SyncGatewayClient", /, *args: P.args, **kwargs: P.kwargs) -> Iterator[T]:
        return self._each(method(self._client, *args, **kwargs))

    return call


def _reading(
    method: Callable[Concatenate[GatewayClient, P], Coroutine[Any, Any, Reading]],
) -> Callable[Concatenate["SyncGatewayClient", P], SyncReading]:
    @functools.wraps(method)
    def call(self: "SyncGatewayClient", /, *args: P.args, **kwargs: P.kwargs) -> SyncReading:
        info, pieces = self._wait(method(self._client, *args, **kwargs))
        return info, self._each(pieces)

    return call


class SyncGatewayClient:
    """A connection to a gateway; usable from any thread. Takes what :class:`GatewayClient` takes.

    Ctrl-C ends the call in hand and nothing else.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._client = GatewayClient(*args, **kwargs)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="gateway-client", daemon=True)
        self._thread.start()
        self._until = threading.local()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: types.TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End open calls and the connection."""
        if self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._client.aclose(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @contextlib.contextmanager
    def deadline(self, seconds: float) -> Iterator[None]:
        """Everything that this thread calls in the block must be done after ``seconds``; else DeadlinePassed is raised."""
        before = getattr(self._until, "at", None)
        mine = time.monotonic() + seconds
        self._until.at = mine if before is None else min(mine, before)
        try:
            yield
        finally:
            self._until.at = before

    wait_connected = _blocking(GatewayClient.wait_connected)
    create_upload = _blocking(GatewayClient.create_upload)
    get_upload = _blocking(GatewayClient.get_upload)
    delete_upload = _blocking(GatewayClient.delete_upload)
    upload_file = _blocking(GatewayClient.upload_file)
    plan_job = _blocking(GatewayClient.plan_job)
    create_job = _blocking(GatewayClient.create_job)
    get_job = _blocking(GatewayClient.get_job)
    list_jobs = _blocking(GatewayClient.list_jobs)
    watch_job = _iterating(GatewayClient.watch_job)
    wait_job = _blocking(GatewayClient.wait_job)
    cancel_job = _blocking(GatewayClient.cancel_job)
    delete_job = _blocking(GatewayClient.delete_job)
    retry_job = _blocking(GatewayClient.retry_job)
    read_result = _reading(GatewayClient.read_result)
    read_source = _reading(GatewayClient.read_source)
    download_result = _blocking(GatewayClient.download_result)
    download_source = _blocking(GatewayClient.download_source)
    playlist = _blocking(GatewayClient.playlist)
    frame = _blocking(GatewayClient.frame)
    quality_report = _blocking(GatewayClient.quality_report)
    caller = _blocking(GatewayClient.caller)
    usage = _blocking(GatewayClient.usage)
    models = _blocking(GatewayClient.models)
    cluster_status = _blocking(GatewayClient.cluster_status)

    @functools.wraps(GatewayClient.write_upload)
    def write_upload(self, upload_id: str, offset: int, pieces: Iterable[bytes], *, finish: bool, sha256: str = "") -> pb.Upload:
        return self._wait(self._client.write_upload(upload_id, offset, _async(pieces), finish=finish, sha256=sha256))

    def _wait(self, work: Coroutine[Any, Any, T]) -> T:
        return self._run(_within(self._left_s(), work))

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        running: list[asyncio.Task[Any]] = []
        future = asyncio.run_coroutine_threadsafe(_noted(work, running), self._loop)
        try:
            return future.result()
        except BaseException:
            # Ctrl-C came while this thread waited: what it waited for must have ended before anything else is done with it.
            if not future.done():
                asyncio.run_coroutine_threadsafe(_stop(running), self._loop).result()
            raise

    def _left_s(self) -> float | None:
        until = getattr(self._until, "at", None)
        return None if until is None else max(0.0, until - time.monotonic())

    def _each(self, items: AsyncGenerator[T, None]) -> Iterator[T]:
        try:
            while (item := self._wait(_next(items))) is not _END:
                yield item
        finally:
            self._run(_close(items))


async def _noted(work: Coroutine[Any, Any, T], running: list[asyncio.Task[Any]]) -> T:
    running.extend(task for task in [asyncio.current_task()] if task)
    return await work


async def _within(seconds: float | None, work: Coroutine[Any, Any, T]) -> T:
    try:
        async with asyncio.timeout(seconds) as limit:
            return await work
    except TimeoutError as error:
        if not limit.expired():
            raise
        raise DeadlinePassed("The time that was set for this call is over.") from error


async def _stop(running: list[asyncio.Task[Any]]) -> None:
    for task in running:
        task.cancel()
        await asyncio.wait([task])


async def _next(items: AsyncGenerator[T, None]) -> T:
    return await anext(items, _END)


async def _close(items: AsyncGenerator[Any, None]) -> None:
    await items.aclose()


async def _async(pieces: Iterable[bytes]) -> AsyncIterator[bytes]:
    each = iter(pieces)
    while (piece := await asyncio.to_thread(next, each, None)) is not None:
        yield piece
