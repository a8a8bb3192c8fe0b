"""How a job is written down: what never changes of it, and what does. Pure."""

import json
from dataclasses import asdict
from typing import Any

from services.common.records import known_fields, record_fields, unknown_fields, used_fields
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Failure, Job, PlanSummary, Result, State

SCHEMA_VERSION = 1

# When it was created is in both: it tells the states of two jobs apart that had the same id one after the other.
_FIXED = ("owner", "subject", "request_id", "traceparent", "job_id", "request", "model", "filename")


class OtherJob(ValueError):
    """A state that belongs to another job of the same id."""


def request_to_json(job: Job) -> bytes:
    """What never changes of a job."""
    record = {
        "schema_version": SCHEMA_VERSION,
        "owner": job.owner,
        "request_id": job.request_id,
        "traceparent": job.traceparent,
        "subject": job.subject,
        "job_id": job.job_id,
        "request": used_fields(job.request),
        "model": job.model,
        "filename": job.filename,
        "source_sha256": job.source_sha256,
        "created_at": job.created_at,
    }
    return json.dumps(record, sort_keys=True).encode()


def state_to_json(job: Job) -> bytes:
    """What changes of a job."""
    record = asdict(job)
    for name in (*_FIXED, "newer"):
        del record[name]
    return json.dumps({"schema_version": SCHEMA_VERSION, **record}, sort_keys=True).encode()


def job_from_json(request: bytes, state: bytes | None) -> Job:
    """Read both back; ``state`` is None where the job was created and nothing more.

    Raises:
        NewerRelease: a later schema version.
        ValueError: not a job, or not the state of this one.
    """
    fixed, changing = _record(request), _record(state) if state else {}
    if changing.pop("created_at", fixed["created_at"]) != fixed["created_at"]:
        raise OtherJob("a state that belongs to another job of the same id")
    asked: dict[str, Any] = fixed.pop("request")
    for name in ("box", "frames", "time_ns"):
        asked[name] = tuple(asked[name]) if asked.get(name) is not None else None
    asked["labels"] = tuple((name, value) for name, value in asked.get("labels", ()))
    plan, failure, result = (changing.pop(name, None) for name in ("plan", "failure", "result"))
    parts = [(fixed | changing, Job), (asked, JobRequest), (plan, PlanSummary), (failure, Failure), (result, Result)]
    newer = any(unknown_fields(record, cls) for record, cls in parts if record)
    asked, plan, failure, result = (known_fields(record or {}, cls) for record, cls in parts[1:])
    return Job(
        request=JobRequest(**asked),
        state=State(changing.pop("state", State.PENDING)),
        plan=PlanSummary(**{**plan, "warnings": tuple(plan["warnings"])}) if plan else None,
        failure=Failure(**failure) if failure else None,
        result=Result(**result) if result else None,
        notes=tuple(changing.pop("notes", ())),
        span_losses=tuple((span, worker) for span, worker in changing.pop("span_losses", ())),
        newer=newer,
        **known_fields(fixed | changing, Job),
    )


def _record(data: bytes) -> dict[str, Any]:
    return record_fields(data, SCHEMA_VERSION, "a job")
