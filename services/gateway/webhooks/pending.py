"""What is still to be told about a job, as it is stored. Pure."""

import json
import random
from dataclasses import asdict, dataclass, replace

from services.common.records import record_fields, require_known

_SCHEMA_VERSION = 1
_GROWTH, _LONGEST_PAUSE_S = 4.0, 4 * 3600.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending:
    """A webhook that has not been delivered; times are seconds since 1970."""

    created_at: float
    """When its job was created or retried."""

    event_id: str = ""
    """Of the event that was tried; empty before the first try."""

    first_at: float = 0.0
    """When that event was tried first."""

    attempts: int = 0
    """Tries of that event."""

    next_at: float = 0.0
    """Not tried before."""

    busy_until: float = 0.0
    """Some gateway is trying it until then."""

    error: str = ""
    """What went wrong at the last try."""


def begun(pending: Pending, event_id: str, now: float, limit_s: float) -> Pending:
    """A try of an event begins, which takes at most ``limit_s``."""
    if pending.event_id != event_id:
        pending = replace(pending, event_id=event_id, first_at=now, attempts=0, error="")
    return replace(pending, attempts=pending.attempts + 1, busy_until=now + limit_s)


def postponed(pending: Pending, error: str, now: float, first_s: float, retry_after_s: float | None = None) -> Pending:
    """A try failed: the next one is after a pause that grows, or when the receiver wants it."""
    pause_s = min(first_s * _GROWTH ** (pending.attempts - 1), _LONGEST_PAUSE_S)
    # Many webhooks of one receiver shall not come back all at once.
    pause_s *= random.uniform(0.9, 1.1)  # noqa: S311 - spreads load, guards nothing
    return replace(pending, error=error, busy_until=0.0, next_at=now + max(pause_s, min(retry_after_s or 0.0, _LONGEST_PAUSE_S)))


def pending_to_json(pending: Pending) -> bytes:
    """The stored form."""
    return json.dumps({"schema_version": _SCHEMA_VERSION, **asdict(pending)}).encode()


def pending_from_json(data: bytes) -> Pending:
    """Read :func:`pending_to_json` back. Raises NewerRelease where a later release wrote it, which will deliver it."""
    record = record_fields(data, _SCHEMA_VERSION, "a webhook")
    require_known([record], Pending, "a webhook")
    return Pending(**record)
