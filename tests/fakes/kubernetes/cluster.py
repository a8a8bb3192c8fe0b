"""The cluster that tests use: the fake one, or a real one where a kubeconfig is named."""

import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import NotFound
from services.gateway.cluster.api import ClusterApi
from tests.fakes.kubernetes.server import FakeKubernetes

KUBECONFIG_VARIABLE = "SEEDVR2_TEST_KUBECONFIG"
"""Kubeconfig of a real cluster; its context's namespace is written to. Unset: the fake."""


@dataclass(kw_only=True)
class Cluster:
    """A cluster, and what a test puts there."""

    kubeconfig: Path
    api: ClusterApi
    fake: FakeKubernetes | None
    """None: it is a real one."""
    name: str = field(default_factory=lambda: f"test-{secrets.token_hex(4)}")
    """Of this test; what others leave behind has another."""

    @property
    def selector(self) -> str:
        return f"seedvr2.io/test={self.name}"

    @property
    def slices(self) -> str:
        return f"/apis/discovery.k8s.io/v1/namespaces/{self.api.namespace}/endpointslices"

    @property
    def leases(self) -> str:
        return f"/apis/coordination.k8s.io/v1/namespaces/{self.api.namespace}/leases"

    def faked(self) -> FakeKubernetes:
        """For what a real one can't be told to do."""
        if self.fake is None:
            pytest.skip("needs a cluster that goes wrong when it is told to")
        return self.fake

    async def write_slice(self, name: str, endpoints: Sequence[dict[str, Any]], **changes: Any) -> dict[str, Any]:
        """Create a slice, or write another in its place."""
        metadata = {"name": f"{self.name}-{name}", "labels": {"seedvr2.io/pool": "gpu", "seedvr2.io/test": self.name}}
        body = {
            "kind": "EndpointSlice", "apiVersion": "discovery.k8s.io/v1", "metadata": metadata, "addressType": "IPv4",
            "endpoints": list(endpoints), "ports": [{"name": "grpc", "protocol": "TCP", "port": 50061}],
        } | changes  # fmt: skip
        path = f"{self.slices}/{metadata['name']}"
        try:
            known = await self.api.get(path)
        except NotFound:
            return await self.api.create(self.slices, body)
        metadata["resourceVersion"] = known["metadata"]["resourceVersion"]
        return await self.api.replace(path, body)

    async def clean(self) -> None:
        """Remove everything of this test."""
        leases = f"app.kubernetes.io/instance in ({self.name}, {self.name}-other)"
        for path, selector in ((self.slices, self.selector), (self.leases, self.selector), (self.leases, leases)):
            for each in (await self.api.list_all(path, selector))[0]:
                await self.api.delete(f"{path}/{each['metadata']['name']}")

    async def delete_slice(self, name: str) -> None:
        await self.api.delete(f"{self.slices}/{self.name}-{name}")


def pod(address: str, state: str = "110", uid: str = "") -> dict[str, Any]:
    """An endpoint; ``state``: ready, serving, terminating as digits."""
    ready, serving, terminating = (digit == "1" for digit in state)
    target = {"kind": "Pod", "name": f"pod-{uid or address}", "uid": uid or f"uid-of-{address}"}
    conditions = {"ready": ready, "serving": serving, "terminating": terminating}
    return {"addresses": [address], "conditions": conditions, "targetRef": target}


@contextlib.asynccontextmanager
async def cluster(directory: Path, *, loopback_endpoints: bool = False) -> AsyncIterator[Cluster]:
    """The cluster of a test; ``loopback_endpoints``: needs slices with addresses of this machine, which only the fake takes."""
    real = os.environ.get(KUBECONFIG_VARIABLE, "")
    if real and not loopback_endpoints:
        async with contextlib.aclosing(await ClusterApi.connect(real, "")) as api:
            it = Cluster(kubeconfig=Path(real), api=api, fake=None)
            try:
                yield it
            finally:
                await it.clean()
        return
    with FakeKubernetes(loopback_endpoints=loopback_endpoints) as fake:
        kubeconfig = fake.kubeconfig(directory / "kubeconfig")
        async with contextlib.aclosing(await ClusterApi.connect(str(kubeconfig), "")) as api:
            yield Cluster(kubeconfig=kubeconfig, api=api, fake=fake)
