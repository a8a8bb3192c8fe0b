"""What the settings choose around the use cases: who finds workers, and who says which gateway drives a job.

The Kubernetes client takes a second and 60 MB to load, so only a gateway that needs it does.
"""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from services.common.metrics import GatewayMetrics
from services.gateway.fleet.endpoints import Finder
from services.gateway.fleet.entries import finders_of
from services.gateway.leases.files import FileLeases
from services.gateway.ports import Leases
from services.gateway.settings import GatewaySettings

if TYPE_CHECKING:
    from services.gateway.cluster.api import ClusterApi


@contextlib.asynccontextmanager
async def surroundings(
    settings: GatewaySettings, directory: Path, metrics: GatewayMetrics
) -> AsyncIterator[tuple[list[Finder], Leases]]:
    """Finders and leases, as long as the block lasts. Raises SettingsError."""
    if "kubernetes" not in (settings.discovery, settings.leases):
        yield finders_of(settings.workers, resolve_s=settings.workers_resolve_s), FileLeases(directory / ".leases")
        return
    from services.gateway.cluster.api import ClusterApi

    async with contextlib.aclosing(
        await ClusterApi.connect(settings.kubernetes_config, settings.kubernetes_namespace)
    ) as api, _leases(settings, directory, api, metrics) as leases:  # fmt: skip
        yield _finders(settings, api, metrics), leases


def _finders(settings: GatewaySettings, api: "ClusterApi", metrics: GatewayMetrics) -> list[Finder]:
    if settings.discovery == "list":
        return finders_of(settings.workers, resolve_s=settings.workers_resolve_s)
    from services.gateway.fleet.sliced import Sliced

    return [Sliced(api, settings.kubernetes_selector, events=metrics.cluster_watch)]


@contextlib.asynccontextmanager
async def _leases(
    settings: GatewaySettings, directory: Path, api: "ClusterApi", metrics: GatewayMetrics
) -> AsyncIterator[Leases]:
    if settings.leases == "file":
        yield FileLeases(directory / ".leases")
        return
    from services.gateway.leases.kubernetes import KubernetesLeases
    from services.gateway.leases.records import LeaseTimes, Names

    names = Names(namespace=api.namespace, instance=settings.kubernetes_instance)
    times = LeaseTimes(lease_s=settings.lease_s, renew_s=settings.lease_renew_s)
    leases = KubernetesLeases(api, names, times, events=metrics.leases, watch_events=metrics.cluster_watch)
    async with contextlib.aclosing(leases):
        await leases.start()
        yield leases
