"""What is told about a job. Pure."""

import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime

from google.protobuf.json_format import MessageToDict

from services.gateway.codec import encode_job
from services.gateway.jobs import Job
from services.gateway.progress import Progress

_ID_CHARACTERS = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened to a job."""

    event_id: str
    """The same at every try, so that receivers can tell repetitions."""

    kind: str
    """job.succeeded, job.failed or job.cancelled."""

    body: bytes
    """JSON: type, timestamp, and the job as ``GetJob`` answers it."""


def end_event(job: Job) -> Event:
    """The end of a job that has ended; a job that is retried and ends again has another one."""
    kind, ended_at = f"job.{job.state.value.lower()}", job.ended_at or job.created_at
    # Notes may be added later, one of them about this very event; what is sent again is what was sent.
    data = MessageToDict(encode_job(job, Progress()), preserving_proto_field_name=True)
    for name in ("revision", "notes"):
        data.pop(name, None)
    record = {"type": kind, "timestamp": datetime.fromtimestamp(ended_at, UTC).isoformat(), "data": data}
    named = f"{job.owner}/{job.job_id}/{kind}/{ended_at!r}"
    return Event(
        event_id=f"msg_{hashlib.sha256(named.encode()).hexdigest()[:_ID_CHARACTERS]}",
        kind=kind,
        body=json.dumps(record, separators=(",", ":"), sort_keys=True).encode(),
    )
