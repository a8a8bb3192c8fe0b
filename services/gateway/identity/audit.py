"""Who did what: a line for each call that changes something, for each that acts for somebody else, and for each refused one."""

import logging
from dataclasses import dataclass
from pathlib import Path

from services.common.logs import json_file_handler
from services.gateway.identity.caller import Caller, Role

_NAME = "seedvr2.audit"
# Everything else changes something.
_READING = ("Get", "List", "Watch", "Download", "Plan")
_REFUSED = frozenset({"UNAUTHENTICATED", "PERMISSION_DENIED"})
# Whoever shows nothing, or isn't looked at, tries nothing; such lines could fill a disk.
_UNTOLD = frozenset({"TokenMissing", "LoginsLimited"})


@dataclass(slots=True, kw_only=True)
class CallRecord:
    """A call, as far as it is known by now."""

    call: str
    """Name of the RPC, or of what a route does."""

    address: str
    """Of the machine that it came from."""

    caller: Caller | None = None
    """Who makes it; None: nobody was let in."""

    target: str = ""
    """What it is about: jobs/ID or uploads/ID."""


class Audit:
    """Writes the lines: into a file of their own, or among the other lines of the log."""

    def __init__(self, file: Path | None) -> None:
        """Raises OSError: the file can't be written."""
        self._log = logging.getLogger(_NAME)
        self._log.setLevel(logging.INFO)
        self._handler = json_file_handler("gateway", file) if file else None
        if self._handler:
            self._log.addHandler(self._handler)
            self._log.propagate = False

    def close(self) -> None:
        """Close the file."""
        if self._handler:
            self._log.removeHandler(self._handler)
            self._log.propagate = True
            self._handler.close()

    def write(self, record: CallRecord, outcome: str, reason: str = "") -> None:
        """Write a line if this call is one that is written down; ``outcome`` is the status code, ``reason`` the error's class."""
        if not _is_written(record, outcome, reason):
            return
        caller = record.caller
        names = {"subject": caller.subject, "role": caller.role.value, "owner": caller.owner} if caller else {}
        by = {"by_subject": caller.by.subject, "by_role": caller.by.role.value} if caller and caller.by else {}
        fields = {"call": record.call, "target": record.target, "address": record.address, **names, **by, "outcome": outcome}
        self._log.info("audit", extra=fields | ({"reason": reason} if reason else {}))


def _is_written(record: CallRecord, outcome: str, reason: str) -> bool:
    if reason in _UNTOLD:
        return False
    if outcome in _REFUSED or not record.call.startswith(_READING):
        return True
    by = record.caller.by if record.caller else None
    return by is not None and by.role is Role.ADMIN
