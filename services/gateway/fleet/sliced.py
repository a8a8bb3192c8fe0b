"""Finds workers by the EndpointSlices of a cluster."""

from prometheus_client import Counter

from services.common.errors import ClusterForbidden, SettingsError
from services.gateway.cluster.api import ClusterApi, Object
from services.gateway.cluster.mirror import Mirror
from services.gateway.fleet.endpoints import Endpoint, Show
from services.gateway.fleet.slices import endpoints_of, pools_of


class Sliced:
    """Finds the workers of the slices that have some labels."""

    def __init__(self, api: ClusterApi, selector: str, *, events: Counter) -> None:
        self._api = api
        self._selector = selector
        self._events = events
        self._shown: list[Endpoint] | None = None
        self._pools: frozenset[str] = frozenset()

    async def run(self, show: Show) -> None:
        """See :class:`Finder`."""

        def changed(slices: list[Object]) -> None:
            found, self._pools = endpoints_of(slices), pools_of(slices)
            if found != self._shown:
                show(found)
            self._shown = found

        path = f"/apis/discovery.k8s.io/v1/namespaces/{self._api.namespace}/endpointslices"
        try:
            await Mirror(self._api, path, self._selector, on_change=changed, events=self._events).run()
        except ClusterForbidden as error:
            raise SettingsError(error.message) from error

    def pools(self) -> frozenset[str]:
        """See :class:`Finder`."""
        return self._pools
