"""The quality report of a job, as it is stored. Pure."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from services.common.records import known_fields, record_fields
from services.gateway.ports import QualityCheck

_SCHEMA_VERSION = 1


def report_to_json(checks: Sequence[QualityCheck]) -> bytes:
    """The stored form."""
    return json.dumps({"schema_version": _SCHEMA_VERSION, "checks": [asdict(c) for c in checks]}).encode()


def report_from_json(data: bytes) -> tuple[QualityCheck, ...]:
    """Read :func:`report_to_json` back. Raises NewerRelease."""
    checks = record_fields(data, _SCHEMA_VERSION, "a report")["checks"]
    return tuple(QualityCheck(**known_fields(check, QualityCheck)) for check in checks)
