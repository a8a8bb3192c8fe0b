"""Where the rank hosts of a worker are, and where all its ranks meet. Pure."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.common.errors import SettingsError

PORT = 50062
"""Where rank hosts listen unless they are told otherwise."""

MEETING_PORT = 50064
"""Where ranks meet in a group of pods."""

_ADDRESS = re.compile(r"([^\s/:]+|\[[0-9a-fA-F:.]+\]):[0-9]{1,5}")


@dataclass(frozen=True, slots=True, kw_only=True)
class HostAddresses:
    """The machines of a worker beside its own."""

    hosts: tuple[str, ...] = ()
    """host:port of each rank host; empty: all ranks are on the worker's machine."""

    meeting: str = ""
    """host:port where the first rank waits for the others."""

    @property
    def machines(self) -> int:
        """All of them, the worker's own too."""
        return 1 + len(self.hosts)


def host_addresses(hosts: Sequence[str], meeting: str, environment: Mapping[str, str]) -> HostAddresses:
    """What the settings say; where they say nothing, what a LeaderWorkerSet's variables do.

    Args:
        hosts: host:port of each rank host.
        meeting: host:port where ranks meet, under a name by which every machine reaches this one.
        environment: of this process.

    Raises:
        SettingsError: something is missing, or of another form.
    """
    leader = environment.get("LWS_LEADER_ADDRESS", "")
    found = tuple(hosts) or _of_group(leader, environment.get("LWS_GROUP_SIZE", "1"))
    if not found:
        return HostAddresses()
    if not meeting and not leader:
        raise SettingsError(
            "With SEEDVR2_INFERENCE_RANK_HOSTS, SEEDVR2_INFERENCE_MEETING_ADDRESS must name host:port where all ranks reach this "
            "machine."
        )
    addresses = HostAddresses(hosts=found, meeting=meeting or f"{leader}:{MEETING_PORT}")
    for address in (*addresses.hosts, addresses.meeting):
        if not _ADDRESS.fullmatch(address):
            raise SettingsError(f"{address!r}, of a rank host or where ranks meet, must be host:port.")
    return addresses


def _of_group(leader: str, size: str) -> tuple[str, ...]:
    """The other pods of a LeaderWorkerSet's group: the leader's pod is named x-0, and they are x-0-1, x-0-2, …"""
    pod, _, rest = leader.partition(".")
    if not leader or not size.isdecimal():
        return ()
    return tuple(f"{pod}-{number}.{rest}:{PORT}" for number in range(1, int(size)))
