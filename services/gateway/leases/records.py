"""Leases as objects of a cluster: names, bodies, and what they say. Pure.

There are two kinds. A *presence* says that a gateway lives, and is renewed for as long as it does. A *job's lease* names the
presence of the gateway that drives the job. So a gateway renews one object, however many jobs it drives.
"""

import hashlib
import time
from dataclasses import dataclass
from typing import Any

from services.gateway.keys import Ref

_PREFIX = "/apis/coordination.k8s.io/v1/namespaces"
_KIND_LABEL = "seedvr2.io/lease"
_INSTANCE_LABEL = "app.kubernetes.io/instance"
_JOB_ANNOTATION = "seedvr2.io/job"
# Half of a SHA-256 is enough to tell jobs apart, and fits a name.
_DIGITS = 32

FIRST_TOKEN = 1
"""Of a job's first lease."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LeaseTimes:
    """How long leases last."""

    lease_s: int
    """Unchanged for so long, a gateway's presence has expired, and others take its jobs."""

    renew_s: float
    """Between two renewals, and two looks at the others."""

    @property
    def deadline_s(self) -> float:
        """After so long without a renewal a gateway lets go of its jobs by itself, before others may take them."""
        return self.lease_s - self.renew_s


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """Where the leases of an installation are."""

    namespace: str
    """Of the cluster."""

    instance: str
    """Tells installations in one namespace apart."""

    @property
    def collection(self) -> str:
        """Path of all leases."""
        return f"{_PREFIX}/{self.namespace}/leases"

    @property
    def presences(self) -> str:
        """Selects the presences."""
        return f"{_KIND_LABEL}=gateway,{_INSTANCE_LABEL}={self.instance}"

    @property
    def jobs(self) -> str:
        """Selects the leases of jobs."""
        return f"{_KIND_LABEL}=job,{_INSTANCE_LABEL}={self.instance}"

    def presence(self, holder: str) -> str:
        """Name of a gateway's presence."""
        return f"seedvr2-gateway-{_digest(self.instance, holder)}"

    def job(self, ref: Ref) -> str:
        """Name of a job's lease."""
        return f"seedvr2-job-{_digest(self.instance, ref.owner, ref.id)}"

    def path(self, name: str) -> str:
        """Path of a lease."""
        return f"{self.collection}/{name}"


def new_presence(names: Names, holder: str, times: LeaseTimes, now: float) -> dict[str, Any]:
    """A gateway's presence; ``now`` in seconds since 1970, for people only."""
    spec = {"holderIdentity": holder, "leaseDurationSeconds": times.lease_s, "acquireTime": _stamp(now), "renewTime": _stamp(now)}
    return _body(names, names.presence(holder), "gateway", spec)


def renewed(record: dict[str, Any], now: float) -> dict[str, Any]:
    """The same, once more."""
    return _with_spec(record, renewTime=_stamp(now))


def new_job_lease(names: Names, ref: Ref, holder: str, now: float) -> dict[str, Any]:
    """A job's first lease, held."""
    spec = {"holderIdentity": holder, "leaseTransitions": FIRST_TOKEN, "acquireTime": _stamp(now)}
    body = _body(names, names.job(ref), "job", spec)
    body["metadata"]["annotations"] = {_JOB_ANNOTATION: f"{ref.owner}/{ref.id}"}
    return body


def taken(record: dict[str, Any], holder: str, now: float) -> dict[str, Any]:
    """A job's lease with another holder."""
    return _with_spec(record, holderIdentity=holder, leaseTransitions=token_of(record) + 1, acquireTime=_stamp(now))


def released(record: dict[str, Any]) -> dict[str, Any]:
    """A job's lease that nobody holds; it stays, so that the next holder's token is larger."""
    return _with_spec(record, holderIdentity="")


def holder_of(record: dict[str, Any]) -> str:
    """Who holds it; empty: nobody."""
    return str(record["spec"].get("holderIdentity") or "")


def job_of(record: dict[str, Any]) -> Ref | None:
    """Whose lease it is; None where it doesn't say so, and is none of ours."""
    owner, _, job_id = str(record["metadata"].get("annotations", {}).get(_JOB_ANNOTATION, "")).partition("/")
    return Ref(owner, job_id) if owner and job_id else None


def token_of(record: dict[str, Any]) -> int:
    """How often it was taken."""
    return int(record["spec"].get("leaseTransitions") or 0)


def lasts_s(record: dict[str, Any], times: LeaseTimes) -> int:
    """How long a presence counts without a renewal; its gateway may have other settings than this one."""
    return max(times.lease_s, int(record["spec"].get("leaseDurationSeconds") or 0))


def version_of(record: dict[str, Any]) -> str:
    """Changes with each write."""
    return str(record["metadata"]["resourceVersion"])


def _body(names: Names, name: str, kind: str, spec: dict[str, Any]) -> dict[str, Any]:
    labels = {
        "app.kubernetes.io/name": "seedvr2", "app.kubernetes.io/part-of": "seedvr2", _INSTANCE_LABEL: names.instance,
        "app.kubernetes.io/managed-by": "seedvr2-gateway", _KIND_LABEL: kind,
    }  # fmt: skip
    metadata = {"name": name, "namespace": names.namespace, "labels": labels}
    return {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": metadata, "spec": spec}


def _with_spec(record: dict[str, Any], **changes: Any) -> dict[str, Any]:
    # Who wrote which field is the server's account.
    metadata = {name: value for name, value in record["metadata"].items() if name != "managedFields"}
    return {**record, "metadata": metadata, "spec": {**record["spec"], **changes}}


def _digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:_DIGITS]


def _stamp(now: float) -> str:
    # Exactly six digits, or the server refuses it.
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1e6):06d}Z"
