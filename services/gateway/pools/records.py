"""How a pool is written down: what its workers served last. Pure."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from services.common.errors import NewerRelease
from services.common.fleet import ModelState, WorkerModel, WorkerStatus
from services.common.records import known_fields, record_fields, used_fields

_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolRecord:
    """A pool as it was known last."""

    pool: str
    """Its name; empty: of workers that name none."""

    seen_at: float
    """When it was known to be there, with workers or without; seconds since 1970."""

    address: str
    """Of the worker that stands for it."""

    status: WorkerStatus
    """What that worker said of itself, as far as it holds for those that come after it."""


def lasting(status: WorkerStatus) -> WorkerStatus:
    """What holds for a pool, without what is of one process, or of one moment."""
    return replace(status, worker_id="", state="gone", free_slots=0, checks={}, detail="")


def serves_the_same(one: WorkerStatus, other: WorkerStatus) -> bool:
    """Whether two workers of a pool offer the same to jobs; a measured speed is never twice the same."""
    return replace(lasting(one), megapixels_per_second=0.0) == replace(lasting(other), megapixels_per_second=0.0)


def pool_to_json(record: PoolRecord) -> bytes:
    """The stored form."""
    status = used_fields(record.status)
    for name in ("models", "installed"):
        status[name] = [used_fields(each) for each in getattr(record.status, name)]
    fields = {"pool": record.pool, "seen_at": record.seen_at, "address": record.address, "status": status}
    return json.dumps({"schema_version": _SCHEMA_VERSION, **fields}, sort_keys=True).encode()


def pool_from_json(data: bytes) -> PoolRecord:
    """Read :func:`pool_to_json` back; what a later release added is left out.

    Raises:
        ValueError: it can't be read by this release.
    """
    try:
        return _pool_of(record_fields(data, _SCHEMA_VERSION, "a pool"))
    except (NewerRelease, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(f"not a pool of this release: {error}") from error


def _pool_of(record: Mapping[str, Any]) -> PoolRecord:
    status = known_fields(record["status"], WorkerStatus)
    status["models"] = tuple(_model_of(each) for each in status["models"])
    status["installed"] = tuple(ModelState(**known_fields(each, ModelState)) for each in status["installed"])
    status["encoders"] = tuple(status.get("encoders", ()))
    return PoolRecord(**known_fields({**record, "status": WorkerStatus(**status)}, PoolRecord))


def _model_of(record: Mapping[str, Any]) -> WorkerModel:
    return WorkerModel(**{**known_fields(record, WorkerModel), "colours": tuple(record["colours"])})
