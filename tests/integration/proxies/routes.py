"""What proxies are told: where each way in listens, and where it leads."""

from dataclasses import dataclass

KINDS = ("page", "rest", "grpc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """A way in."""

    port: int
    """Where the proxy listens, on the loopback interface."""

    backend: str
    """host:port that it leads to."""


Ways = dict[str, Way]
"""By kind: one of KINDS."""
