"""Where workers are, as those say who find them. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True, slots=True, kw_only=True)
class Endpoint:
    """A worker's address, and what its finder knows of it."""

    address: str
    """host:port, with brackets around an IPv6 host."""

    pool: str = ""
    """As it is listed or labelled; the worker itself knows better."""

    identity: str = ""
    """Of its pod: another one at the same address is another worker; empty: not known."""

    ready: bool = True
    """It may get spans."""

    terminating: bool = False
    """It is about to stop: no new span, but what it has goes on."""

    @property
    def known_as(self) -> str:
        """What its finder knows better than the worker; see :class:`WorkerView`."""
        if self.terminating:
            return "draining"
        return "" if self.ready else "starting"


Show = Callable[[Sequence[Endpoint]], None]
"""Takes all workers that a finder knows now, in place of those that it knew before."""


class Finder(Protocol):
    """Somebody who finds workers."""

    async def run(self, show: Show) -> None:
        """Look for workers until cancelled; ``show`` them at first, and after each change.

        Raises:
            SettingsError: it can't ever find any like this.
        """

    def pools(self) -> frozenset[str]:
        """Pools that it knows by name now, with workers or without."""


def joined(found: Sequence[Sequence[Endpoint]]) -> dict[str, Endpoint]:
    """What several finders found, by address; who comes first knows better."""
    endpoints: dict[str, Endpoint] = {}
    for each in found:
        for endpoint in each:
            endpoints.setdefault(endpoint.address, endpoint)
    return endpoints


def split_address(address: str) -> tuple[str, int] | None:
    """host:port as (host, port), the host without brackets; None where it is of another form."""
    host, _, port = address.rpartition(":")
    bare = host.removeprefix("[").removesuffix("]")
    well_formed = bool(bare) and port.isascii() and port.isdigit() and 0 < int(port) < 65536
    return (bare, int(port)) if well_formed and host == with_brackets(bare) else None


def with_brackets(host: str) -> str:
    """A host as it stands before a port."""
    return f"[{host}]" if ":" in host else host


class Listed:
    """Finds the workers of a list."""

    def __init__(self, endpoints: Sequence[Endpoint]) -> None:
        self._endpoints = endpoints

    async def run(self, show: Show) -> None:
        """See :class:`Finder`."""
        show(self._endpoints)

    def pools(self) -> frozenset[str]:
        """See :class:`Finder`."""
        return frozenset(endpoint.pool for endpoint in self._endpoints if endpoint.pool)
