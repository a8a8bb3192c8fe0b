"""What owners got of late, so that they share the fleet over time. Pure; the clock is an argument."""

from collections.abc import Mapping

HALF_LIFE_S = 300.0
"""Work this long ago counts half."""

_FORGOTTEN_MEGAPIXELS = 1e-3


class Shares:
    """An account for each owner, in output megapixels that fade."""

    def __init__(self) -> None:
        self._accounts: dict[str, float] = {}
        self._at = 0.0

    def charge(self, owner: str, megapixels: float, now: float) -> None:
        """Count work that was done for an owner."""
        self._fade(now)
        self._accounts[owner] = self._accounts.get(owner, 0.0) + megapixels

    def recent(self, now: float) -> Mapping[str, float]:
        """Megapixels of each owner that got something of late."""
        self._fade(now)
        return self._accounts

    def _fade(self, now: float) -> None:
        left = 0.5 ** (max(0.0, now - self._at) / HALF_LIFE_S)
        self._at = max(now, self._at)
        faded = {owner: megapixels * left for owner, megapixels in self._accounts.items()}
        self._accounts = {owner: megapixels for owner, megapixels in faded.items() if megapixels > _FORGOTTEN_MEGAPIXELS}
