"""Gateways that share workers leave each other a turn. Pure; clock and chance are arguments.

A gateway hears first that a worker is free again when it was its own span that ended, and would take it again each time. Where
others use the same workers too, it waits a moment by chance, as long as others need at most to see the worker free.
"""

import math

_REMEMBERED_S = 30.0
# Looks at a worker, until what it says is surely newer than the end of a span of ours.
_OLD_WORDS = 3


class Courtesy:
    """Which workers this gateway leaves to others for a moment."""

    def __init__(self, pause_s: float) -> None:
        """``pause_s``: how often gateways look at workers."""
        self._pause_s = pause_s
        self._seen_at: float | None = None
        self._until: dict[str, float] = {}
        self._left: dict[str, float] = {}

    def see_others(self, now: float, address: str = "") -> None:
        """Somebody else has a span on a worker, or was there first. What a worker said may still be of a span of ours."""
        if now - self._left.get(address, -math.inf) > _OLD_WORDS * self._pause_s:
            self._seen_at = now

    def release(self, address: str, now: float, chance: float) -> float:
        """A span of ours has left a worker; how many seconds it is left alone. ``chance`` is from 0 to 1."""
        self._left = {worker: left for worker, left in self._left.items() if now - left < _REMEMBERED_S} | {address: now}
        if self._seen_at is None or now - self._seen_at > _REMEMBERED_S:
            return 0.0
        self._until[address] = now + chance * self._pause_s
        return chance * self._pause_s

    def left_alone(self, now: float) -> frozenset[str]:
        """Workers that are not to be taken yet."""
        self._until = {address: until for address, until in self._until.items() if until > now}
        return frozenset(self._until)
