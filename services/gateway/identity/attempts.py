"""How often wrong tokens may come: from one address, and in all. Pure; the clock is an argument."""

import ipaddress
from collections import OrderedDict, deque

from services.common.addresses import parse_address
from services.common.errors import LoginsLimited


class FailedLogins:
    """Counts failures within a window of time; memory is bounded however many addresses there are."""

    def __init__(self, *, per_address: int, in_all: int, window_s: float, max_addresses: int = 10_000) -> None:
        self._per_address = per_address
        self._in_all: deque[float] = deque(maxlen=in_all)
        self._window_s = window_s
        self._max_addresses = max_addresses
        self._failures: OrderedDict[str, deque[float]] = OrderedDict()

    def check(self, address: str, now: float) -> None:
        """Raises LoginsLimited: as many as may be have failed."""
        theirs = self._failures.get(_group(address))
        wait_s = max(self._wait_s(self._in_all, now), self._wait_s(theirs, now) if theirs else 0.0)
        if wait_s > 0:
            raise LoginsLimited("Too many wrong tokens came; wait a moment, then send the right one.", retry_after_s=wait_s)

    def failed(self, address: str, now: float) -> None:
        """A wrong token came."""
        group = _group(address)
        self._failures.setdefault(group, deque(maxlen=self._per_address)).append(now)
        self._failures.move_to_end(group)
        if len(self._failures) > self._max_addresses:
            self._failures.popitem(last=False)
        self._in_all.append(now)

    def _wait_s(self, failures: deque[float], now: float) -> float:
        if len(failures) < (failures.maxlen or 0):
            return 0.0
        return max(0.0, failures[0] + self._window_s - now)


def _group(address: str) -> str:
    """Addresses that one person can have: of IPv6 the network of 64 bits."""
    parsed = parse_address(address)
    return str(ipaddress.ip_network((parsed, 64), strict=False)) if parsed is not None and parsed.version == 6 else address
