"""What callers may use: by role, and by subject where a file says otherwise.

The file is JSON: {"roles": {"user": {…}}, "subjects": {"alice": {…}}}, each with any of active_jobs, gpu_seconds_month and
megapixels_month. What a subject's entry leaves out is its role's; what neither has is not limited.
"""

import contextlib
import dataclasses
import json
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from services.common.errors import QuotaExceeded
from services.common.watched import Watched
from services.gateway.book import JobBook
from services.gateway.identity.caller import Caller, Role, current_caller, require_admin
from services.gateway.identity.usage import Usage, UsageBook, checked_month, month_of

# How old a sum may be on which somebody is refused.
_FRESH_S = 30.0
_MAX_SUMS = 10_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """What somebody may use; None: as much as they want."""

    active_jobs: float | None = None
    """Jobs that wait or run."""

    gpu_seconds_month: float | None = None
    """Device seconds in a month, UTC."""

    megapixels_month: float | None = None
    """Output megapixels in a month, UTC."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuotaTable:
    """What the file says."""

    roles: Mapping[Role, Quota]
    """Of everybody who has a role."""

    subjects: Mapping[str, Quota]
    """Of some in particular."""

    def of(self, caller: Caller) -> Quota:
        """What a caller may use."""
        of_role, of_subject = self.roles.get(caller.role, Quota()), self.subjects.get(caller.subject, Quota())
        names = [f.name for f in dataclasses.fields(Quota)]
        both = {name: (getattr(of_subject, name), getattr(of_role, name)) for name in names}
        return Quota(**{name: mine if mine is not None else theirs for name, (mine, theirs) in both.items()})


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What a caller is told of what was used."""

    month: str
    """YYYY-MM."""

    usages: tuple[Usage, ...]
    """The caller's own, or everybody's. Under which name it is kept only administrators are told."""

    quota: Quota
    """What the caller may use."""

    active_jobs: int
    """Jobs of the caller that wait or run."""


class Quotas:
    """Says whether a caller may begin another job. Who has begun one has it to its end."""

    def __init__(self, file: str, book: JobBook, usage: UsageBook) -> None:
        """``file`` empty: nothing is limited. Raises SettingsError: it can't be used."""
        self._table = Watched([Path(file)], parse_quotas) if file else None
        self._book = book
        self._usage = usage
        self._beginning: Counter[str] = Counter()
        self._sums: dict[str, tuple[float, str, Usage]] = {}

    def of(self, caller: Caller) -> Quota:
        """What a caller may use."""
        return self._table.get().of(caller) if self._table else Quota()

    def active(self, owner: str) -> int:
        """Jobs of an owner that wait or run."""
        return sum(job.owner == owner for job in self._book.active())

    async def account(self, month: str, *, all_owners: bool) -> Account:
        """What whoever calls used in a month, YYYY-MM or empty for this one, or with ``all_owners`` everybody.

        Raises:
            InvalidOption: that is no month. PermissionDenied: others' is told to administrators only. StoreUnavailable.
        """
        caller, month = current_caller(), checked_month(month)
        if all_owners:
            require_admin("see what others used")
            used = await self._usage.of_all(month)
        else:
            used = [replace(await self._usage.of(caller.owner, month), subject=caller.subject)]
        if caller.role is not Role.ADMIN:
            used = [replace(usage, owner="") for usage in used]
        return Account(month=month, usages=tuple(used), quota=self.of(caller), active_jobs=self.active(caller.owner))

    @contextlib.asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Begin a job of whoever calls inside the block; what others of theirs begin meanwhile counts.

        Raises:
            QuotaExceeded: they may not begin another one now. StoreUnavailable.
        """
        owner = current_caller().owner
        self._beginning[owner] += 1
        try:
            await self._require(self.active(owner) + self._beginning[owner] - 1)
            yield
        finally:
            self._beginning[owner] -= 1
            if not self._beginning[owner]:
                del self._beginning[owner]

    async def _require(self, active: int) -> None:
        caller = current_caller()
        quota = self.of(caller)
        if quota.active_jobs is not None and active >= quota.active_jobs:
            raise QuotaExceeded(
                f"You have {active} jobs that wait or run, and may have {quota.active_jobs:g}; wait until one has ended.",
                field="active_jobs",
            )
        if quota.gpu_seconds_month is None and quota.megapixels_month is None:
            return
        used = await self._used(caller.owner)
        _check_month("gpu_seconds_month", used.gpu_seconds, quota.gpu_seconds_month, "device seconds")
        _check_month("megapixels_month", used.megapixels, quota.megapixels_month, "output megapixels")

    async def _used(self, owner: str) -> Usage:
        now, month = time.monotonic(), month_of(time.time())
        known = self._sums.get(owner)
        if known is not None and known[1] == month and now - known[0] < _FRESH_S:
            return known[2]
        used = await self._usage.of(owner, month)
        if len(self._sums) >= _MAX_SUMS:
            self._sums.clear()
        self._sums[owner] = now, month, used
        return used


def parse_quotas(data: bytes) -> QuotaTable:
    """What a file says. Raises ValueError."""
    found = json.loads(data)
    if not isinstance(found, dict) or not found.keys() <= {"roles", "subjects"}:
        raise ValueError('it must be an object with "roles" and "subjects"')
    roles = {Role(name): _quota(f"role {name}", entry) for name, entry in found.get("roles", {}).items()}
    return QuotaTable(
        roles=roles, subjects={name: _quota(name, entry) for name, entry in found.get("subjects", {}).items()}
    )  # fmt: skip


def _quota(whose: str, entry: Any) -> Quota:
    names = {f.name for f in dataclasses.fields(Quota)}
    if not isinstance(entry, dict) or not entry.keys() <= names:
        raise ValueError(f"the entry of {whose} must have nothing but {', '.join(sorted(names))}")
    for name, value in entry.items():
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise ValueError(f"{name} of {whose} must be a number of at least 0")
    return Quota(**entry)


def _check_month(name: str, used: float, limit: float | None, what: str) -> None:
    if limit is not None and used >= limit:
        raise QuotaExceeded(
            f"You have used {used:.0f} of your {limit:.0f} {what} of {month_of(time.time())}; next month there are new ones.",
            field=name,
        )
