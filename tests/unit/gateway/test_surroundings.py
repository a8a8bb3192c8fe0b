from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import SettingsError
from services.common.metrics import GatewayMetrics
from services.gateway.fleet.endpoints import Listed
from services.gateway.fleet.names import Named
from services.gateway.fleet.sliced import Sliced
from services.gateway.leases.files import FileLeases
from services.gateway.leases.kubernetes import KubernetesLeases
from services.gateway.settings import GatewaySettings
from services.gateway.surroundings import surroundings
from tests.fakes.kubernetes.cluster import Cluster


async def chosen(directory: Path, **settings: str | tuple[str, ...]) -> tuple[list[type], type]:
    """What finds workers, and what has leases."""
    around = surroundings(GatewaySettings(**settings), directory, GatewayMetrics(CollectorRegistry()))
    async with around as (finders, leases):
        return [type(finder) for finder in finders], type(leases)


async def test_on_one_machine_a_list_and_lock_files_do(tmp_path: Path):
    assert await chosen(tmp_path, workers=("h:1", "dns:///n:2")) == ([Listed, Named], FileLeases)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"discovery": "kubernetes", "leases": "kubernetes"}, ([Sliced], KubernetesLeases)),
        ({"discovery": "kubernetes"}, ([Sliced], FileLeases)),
        ({"leases": "kubernetes"}, ([Listed], KubernetesLeases)),
    ],
)
async def test_in_a_cluster_its_objects_say(
    cluster: Cluster, tmp_path: Path, settings: dict[str, str], expected: tuple[list[type], type]
):
    around = {"kubernetes_config": str(cluster.kubeconfig), "kubernetes_instance": cluster.name}
    assert await chosen(tmp_path, **settings, **around) == expected


async def test_a_gateway_for_a_cluster_does_not_start_elsewhere(tmp_path: Path):
    with pytest.raises(SettingsError, match="KUBERNETES_CONFIG"):
        await chosen(tmp_path, discovery="kubernetes")
