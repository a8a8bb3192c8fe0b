from pathlib import Path

import pytest

from services.common.errors import AlreadyExists, ClusterForbidden, ClusterUnavailable, NotFound, SettingsError, WrongState
from services.gateway.cluster.api import ClusterApi
from tests.fakes.kubernetes.cluster import Cluster, pod


def lease(cluster: Cluster, number: int = 0) -> dict:
    metadata = {"name": f"{cluster.name}-{number}", "labels": {"seedvr2.io/test": cluster.name}}
    return {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": metadata, "spec": {"holderIdentity": "a"}}


async def test_an_object_is_written_read_and_removed(cluster: Cluster):
    created = await cluster.api.create(cluster.leases, lease(cluster))
    path = f"{cluster.leases}/{cluster.name}-0"
    with pytest.raises(AlreadyExists):
        await cluster.api.create(cluster.leases, lease(cluster))
    replaced = await cluster.api.replace(path, created | {"spec": {"holderIdentity": "b"}})
    with pytest.raises(WrongState, match="has been modified"):
        await cluster.api.replace(path, created | {"spec": {"holderIdentity": "c"}})
    assert (await cluster.api.get(path))["spec"] == replaced["spec"] == {"holderIdentity": "b"}
    with pytest.raises(WrongState):
        await cluster.api.delete(path, version=created["metadata"]["resourceVersion"])
    await cluster.api.delete(path, version=replaced["metadata"]["resourceVersion"])
    with pytest.raises(NotFound):
        await cluster.api.get(path)


async def test_a_watch_goes_on_from_a_list(cluster: Cluster):
    found, version = await cluster.api.list_all(cluster.slices, cluster.selector)
    assert found == []
    await cluster.write_slice("a", [pod("10.0.0.1")])
    await cluster.delete_slice("a")
    seen = [event["type"] async for event in cluster.api.watch(cluster.slices, cluster.selector, version, last_s=1)]
    assert [kind for kind in seen if kind != "BOOKMARK"] == ["ADDED", "DELETED"]


async def test_a_forgotten_version_is_told_from_other_failures(cluster: Cluster):
    fake = cluster.faked()
    fake.compact()
    with pytest.raises(WrongState, match="too old"):
        [event async for event in cluster.api.watch(cluster.slices, "", "1000", last_s=1)]


async def test_who_may_not_ask_is_told_what_is_missing(cluster: Cluster):
    cluster.faked().forbidden.add(("create", "leases"))
    with pytest.raises(ClusterForbidden, match='cannot create resource "leases" in API group'):
        await cluster.api.create(cluster.leases, lease(cluster))


@pytest.mark.parametrize("code", [500, 503, 429])
async def test_a_server_that_fails_is_not_there(cluster: Cluster, code: int):
    cluster.faked().failures.append(code)
    with pytest.raises(ClusterUnavailable, match=str(code)):
        await cluster.api.get(f"{cluster.leases}/x")


async def test_a_server_that_is_away_or_slow_is_not_there(cluster: Cluster):
    fake = cluster.faked()
    fake.pause_s = 0.5
    with pytest.raises(ClusterUnavailable):
        await cluster.api.get(f"{cluster.leases}/x", timeout_s=0.1)
    fake.go_away()
    with pytest.raises(ClusterUnavailable):
        await cluster.api.get(f"{cluster.leases}/x")


async def test_without_a_pod_or_a_kubeconfig_there_is_no_cluster(tmp_path: Path):
    with pytest.raises(SettingsError, match="doesn't run in a pod"):
        await ClusterApi.connect("", "")
    (tmp_path / "wrong").write_text("{}")
    for path in ("wrong", "missing"):
        with pytest.raises(SettingsError, match="is no kubeconfig"):
            await ClusterApi.connect(str(tmp_path / path), "")


async def test_the_namespace_is_that_of_the_context_unless_another_is_named(cluster: Cluster):
    fake = cluster.faked()
    path = fake.kubeconfig(cluster.kubeconfig, namespace="video")
    for named, expected in (("", "video"), ("other", "other")):
        api = await ClusterApi.connect(str(path), named)
        assert api.namespace == expected
        await api.aclose()
