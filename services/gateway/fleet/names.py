"""Finds workers by a name that has an address for each, as a headless service has."""

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any

from services.gateway.fleet.endpoints import Endpoint, Show, with_brackets

_log = logging.getLogger(__name__)
Found = tuple[int, Any, Any, Any, tuple[Any, ...]]
"""An address, as ``getaddrinfo`` gives it."""

Resolve = Callable[[str, int], Awaitable[Iterable[Found]]]
"""Looks up a host and port; raises ``socket.gaierror``."""

_UNKNOWN = (socket.EAI_NONAME, socket.EAI_NODATA)


@dataclass(frozen=True, slots=True, kw_only=True)
class Name:
    """A name in DNS."""

    host: str
    """What is looked up."""

    port: int
    """Of each worker."""

    pool: str = ""
    """Of its workers."""


class Named:
    """Finds the workers of a name, again every ``resolve_s`` seconds."""

    def __init__(self, name: Name, *, resolve_s: float, resolve: Resolve | None = None) -> None:
        """``resolve``: looks a name up; None: as this machine does."""
        self._name = name
        self._resolve = resolve or _resolve
        self._resolve_s = resolve_s
        self._shown: list[Endpoint] | None = None
        self._failing = False

    async def run(self, show: Show) -> None:
        """See :class:`Finder`."""
        while True:
            hosts = await self._look_up()
            if hosts is not None:
                found = [
                    Endpoint(address=f"{with_brackets(host)}:{self._name.port}", pool=self._name.pool) for host in hosts
                ]  # fmt: skip
                if found != self._shown:
                    show(found)
                self._shown = found
            await asyncio.sleep(self._resolve_s)

    def pools(self) -> frozenset[str]:
        """See :class:`Finder`."""
        return frozenset({self._name.pool} if self._name.pool else ())

    async def _look_up(self) -> list[str] | None:
        """Addresses; None where the name service doesn't know, so that what was found last still stands."""
        try:
            found = await self._resolve(self._name.host, self._name.port)
        except socket.gaierror as error:
            self._note(error)
            # A headless service without a ready pod has no address at all.
            return [] if error.errno in _UNKNOWN else None
        self._failing = False
        return hosts_of(found)

    def _note(self, error: socket.gaierror) -> None:
        if not self._failing:
            _log.warning("a name of workers has no address now", extra={"host": self._name.host, "detail": error.strerror})
        self._failing = True


async def _resolve(host: str, port: int) -> Iterable[Found]:
    return await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)


def hosts_of(found: Iterable[Found]) -> list[str]:
    """Each address once. Where both families are there, one, because nobody says which two are the same worker."""
    by_family: dict[int, set[str]] = {}
    for family, _, _, _, place in found:
        by_family.setdefault(family, set()).add(place[0])
    return sorted(by_family.get(socket.AF_INET) or by_family.get(socket.AF_INET6) or ())
