"""A copy of a collection of objects, kept up to date: list, then watch, and both again when something goes wrong."""

import asyncio
import contextlib
import logging
import random
import time
from collections.abc import Callable

from prometheus_client import Counter

from services.common.errors import ClusterForbidden, ClusterUnavailable, WrongState
from services.gateway.cluster.api import ClusterApi, Object

_log = logging.getLogger(__name__)
_WATCH_S = 60
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 5.0
# A server whose versions begin anew, as after a restored backup, knows nothing of ours.
_FAILURES_BEFORE_LIST = 3


class Mirror:
    """The objects of a collection that have some labels."""

    def __init__(
        self, api: ClusterApi, path: str, selector: str, *, events: Counter,
        on_change: Callable[[list[Object]], None] | None = None, watch_s: int = _WATCH_S,
    ) -> None:  # fmt: skip
        """``on_change`` gets all objects whenever some have changed; ``events`` counts, by kind and by what happened."""
        self._api = api
        self._path = path
        self._selector = selector
        self._on_change = on_change
        self._events = events
        self._watch_s = watch_s
        self._objects: dict[str, Object] = {}
        self._version = ""
        self._failures = 0

    def find(self, name: str) -> Object | None:
        """An object as it was seen last."""
        return self._objects.get(name)

    async def run(self) -> None:
        """Keep up until cancelled; what was seen last stands while the server is away.

        Raises:
            ClusterForbidden: the very first list is not allowed.
        """
        allowed = False
        while True:
            started = time.monotonic()
            try:
                if not self._version:
                    await self._list()
                    allowed = True
                await self._watch()
                # Who ends a watch at once must not be asked at once again.
                await self._pause(_FIRST_PAUSE_S if time.monotonic() - started < 1 else 0)
            except WrongState as error:
                self._count("expired")
                _log.info("a watch expired; listing again", extra={"path": self._path, "detail": error.message})
                self._version = ""
                await self._pause(_FIRST_PAUSE_S)
            except ClusterUnavailable as error:
                if not allowed and isinstance(error, ClusterForbidden):
                    raise
                await self._endure(error)

    async def _list(self) -> None:
        objects, version = await self._api.list_all(self._path, self._selector)
        self._count("list")
        self._objects = {each["metadata"]["name"]: each for each in objects}
        self._seen(version)
        self._tell()

    async def _watch(self) -> None:
        watch = self._api.watch(self._path, self._selector, self._version, last_s=self._watch_s)
        async with contextlib.aclosing(watch):
            async for event in watch:
                self._take(event["type"], event["object"])

    def _take(self, kind: str, found: Object) -> None:
        self._count(kind.lower())
        self._seen(found["metadata"]["resourceVersion"])
        if kind == "BOOKMARK":
            return
        if kind == "DELETED":
            self._objects.pop(found["metadata"]["name"], None)
        else:
            self._objects[found["metadata"]["name"]] = found
        self._tell()

    def _tell(self) -> None:
        if self._on_change is not None:
            self._on_change(list(self._objects.values()))

    def _seen(self, version: str) -> None:
        self._version, self._failures = version, 0

    async def _endure(self, error: ClusterUnavailable) -> None:
        if not self._failures:
            _log.warning("watching goes on later: %s", error.message, extra={"path": self._path})
        self._count("lost")
        self._failures += 1
        if self._failures >= _FAILURES_BEFORE_LIST:
            self._version = ""
        await self._pause(min(_FIRST_PAUSE_S * 2**self._failures, _LONGEST_PAUSE_S))

    async def _pause(self, longest_s: float) -> None:
        # Not all gateways at the same time.
        await asyncio.sleep(longest_s * random.uniform(0.5, 1))  # noqa: S311 - no secret

    def _count(self, event: str) -> None:
        self._events.labels(self._path.rpartition("/")[2], event).inc()
