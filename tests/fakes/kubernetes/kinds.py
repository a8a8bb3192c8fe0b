"""The kinds of objects that the fake knows, and what a real server refuses of them."""

import ipaddress
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Cause:
    """Why an object is invalid."""

    reason: str
    message: str
    field: str


@dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of objects."""

    plural: str
    name: str
    group: str = ""
    version: str = "v1"
    counts_generations: bool = False
    """Whether metadata.generation grows with each change of what is wanted."""
    blank: Callable[[], Object]
    """What a bookmark shows beside its version."""
    check: Callable[[Object, Object | None], list[Cause]]
    """What is wrong with an object in place of another, or of none."""

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def resource(self) -> str:
        """With its group, as errors name it."""
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def qualified(self) -> str:
        """The same of the kind's name."""
        return f"{self.name}.{self.group}" if self.group else self.name

    @property
    def path(self) -> str:
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"


def _check_lease(lease: Object, before: Object | None) -> list[Cause]:
    causes, spec = [], lease.get("spec") or {}
    if before is not None and not lease["metadata"].get("resourceVersion"):
        causes.append(_invalid("metadata.resourceVersion", "0x0", "must be specified for an update"))
    if spec.get("leaseDurationSeconds") is not None and spec["leaseDurationSeconds"] <= 0:
        causes.append(_invalid("spec.leaseDurationSeconds", spec["leaseDurationSeconds"], "must be greater than 0"))
    if spec.get("leaseTransitions") is not None and spec["leaseTransitions"] < 0:
        causes.append(_invalid("spec.leaseTransitions", spec["leaseTransitions"], "must be greater than or equal to 0"))
    return causes


def _check_slice(endpoints: Object, before: Object | None) -> list[Cause]:
    causes = []
    for i, endpoint in enumerate(endpoints.get("endpoints") or []):
        for j, address in enumerate(endpoint.get("addresses") or []):
            place = f"endpoints[{i}].addresses[{j}]"
            parsed = ipaddress.ip_address(address)
            if parsed.is_loopback:
                causes.append(_invalid(place, f'"{address}"', "may not be in the loopback range (127.0.0.0/8, ::1/128)"))
            if parsed.is_link_local:
                causes.append(_invalid(place, f'"{address}"', "may not be in the link-local range (169.254.0.0/16, fe80::/10)"))
    return causes


def _check_pod(pod: Object, before: Object | None) -> list[Cause]:
    if (pod.get("spec") or {}).get("containers"):
        return []
    return [Cause(reason="FieldValueRequired", message="Required value", field="spec.containers")]


def _check_service(service: Object, before: Object | None) -> list[Cause]:
    return []


def _invalid(field: str, value: object, text: str) -> Cause:
    return Cause(reason="FieldValueInvalid", message=f"Invalid value: {value}: {text}", field=field)


KINDS = {
    kind.plural: kind
    for kind in (
        Kind(plural="leases", name="Lease", group="coordination.k8s.io", blank=lambda: {"spec": {}}, check=_check_lease),
        Kind(
            plural="endpointslices", name="EndpointSlice", group="discovery.k8s.io", counts_generations=True,
            blank=lambda: {"addressType": "", "endpoints": None, "ports": None}, check=_check_slice,
        ),
        Kind(
            plural="pods", name="Pod", counts_generations=True, blank=lambda: {"spec": {"containers": None}, "status": {}},
            check=_check_pod,
        ),
        Kind(plural="services", name="Service", blank=lambda: {"spec": {}, "status": {"loadBalancer": {}}}, check=_check_service),
    )
}  # fmt: skip

_MICRO_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}(Z|[+-]\d\d:\d\d)")


def unreadable(kind: Kind, body: Object) -> str:
    """What a server says of a body that it can't even read; empty where it can."""
    spec = body.get("spec") or {}
    for name in ("renewTime", "acquireTime") if kind.plural == "leases" else ():
        value = spec.get(name)
        if value is not None and not _MICRO_TIME.fullmatch(value):
            return (
                f'{kind.name} in version "{kind.version}" cannot be handled as a {kind.name}: parsing time "{value}" as '
                f'"2006-01-02T15:04:05.000000Z07:00": cannot parse "{value}"'
            )
    return ""
