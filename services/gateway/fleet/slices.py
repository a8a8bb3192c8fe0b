"""Which workers EndpointSlices show. Pure.

The life of a pod in them, as (ready, serving, terminating): ``000``, ``110``, from its deletion on ``011`` although it is
still there, then gone. During a rolling update pods in all of these stand side by side.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from services.gateway.fleet.endpoints import Endpoint, with_brackets

POOL_LABEL = "seedvr2.io/pool"
"""On a pool's headless Service, whose slices get its labels."""
_PORT = "grpc"
# Of a pod with addresses of both families.
_FAMILIES = ("IPv4", "IPv6")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Sighting:
    """A pod's entry in a slice."""

    pod: str
    family: int
    version: int
    endpoint: Endpoint


def endpoints_of(slices: Iterable[dict[str, Any]]) -> list[Endpoint]:
    """Each pod once, by address, however many slices it stands in."""
    by_pod: dict[str, list[_Sighting]] = {}
    for each in slices:
        for sighting in _sightings(each):
            by_pod.setdefault(sighting.pod, []).append(sighting)
    by_address: dict[str, Endpoint] = {}
    for endpoint in map(_agreed, by_pod.values()):
        other = by_address.get(endpoint.address)
        # A pod that is gone gave its address to a new one before its slice was written.
        if other is None or other.terminating > endpoint.terminating:
            by_address[endpoint.address] = endpoint
    return [by_address[address] for address in sorted(by_address)]


def pools_of(slices: Iterable[dict[str, Any]]) -> frozenset[str]:
    """Pools that have a Service; one that is scaled to nothing leaves a slice without endpoints."""
    return frozenset(filter(None, map(_pool, slices)))


def _sightings(found: dict[str, Any]) -> Iterable[_Sighting]:
    port, family = _port(found), found.get("addressType")
    if port is None or family not in _FAMILIES:
        return
    metadata, pool = found["metadata"], _pool(found)
    for each in found.get("endpoints") or ():
        # More than one address are the same endpoint's; the first is the one to use.
        address = f"{with_brackets(each['addresses'][0])}:{port}"
        uid = (each.get("targetRef") or {}).get("uid", "")
        yield _Sighting(
            pod=uid or address, family=_FAMILIES.index(family), version=int(metadata["resourceVersion"]),
            endpoint=_endpoint(address, pool, uid, each.get("conditions") or {}),
        )  # fmt: skip


def _pool(found: dict[str, Any]) -> str:
    return str((found["metadata"].get("labels") or {}).get(POOL_LABEL, ""))


def _endpoint(address: str, pool: str, uid: str, conditions: dict[str, bool | None]) -> Endpoint:
    # What is not said of a condition means: ready, and not terminating.
    ready, terminating = conditions.get("ready"), conditions.get("terminating")
    return Endpoint(address=address, pool=pool, identity=uid, ready=ready is not False, terminating=bool(terminating))


def _port(found: dict[str, Any]) -> int | None:
    ports = [p for p in found.get("ports") or () if p.get("port")]
    named = [p for p in ports if p.get("name") == _PORT]
    chosen = named or ports
    return int(chosen[0]["port"]) if len(chosen) == 1 else None


def _agreed(sightings: list[_Sighting]) -> Endpoint:
    """What several slices say of a pod: the newest one's word, but the end of a pod is never taken back."""
    chosen = min(sightings, key=lambda s: (s.family, -s.version)).endpoint
    newest = max(sightings, key=lambda s: s.version).endpoint
    return Endpoint(
        address=chosen.address, pool=chosen.pool or newest.pool, identity=chosen.identity, ready=newest.ready,
        terminating=any(s.endpoint.terminating for s in sightings),
    )  # fmt: skip
