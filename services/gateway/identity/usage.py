"""What owners used, by month: device seconds, output megapixels, jobs.

Each job has a record of its own, in the month in which it was created, and whoever drives the job writes it. A span is booked
under its key, once: a gateway that dies and another that goes on never book it twice. Records stay when jobs are deleted.
"""

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from services.common.errors import AlreadyExists, InvalidOption, NotFound, ServiceError, WrongState
from services.gateway import keys
from services.gateway.jobs import Job
from services.gateway.store.base import Store

_log = logging.getLogger(__name__)
DEVICE_STAGES = frozenset({"prepare", "vae_encode", "dit", "vae_decode", "colour"})
"""Stages that hold the device; decoding and encoding go on beside them."""

_SCHEMA_VERSION = 1
_MONTH = re.compile(r"[0-9]{4}-(0[1-9]|1[0-2])")
_TRIES, _AT_ONCE = 5, 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """What an owner used in a month."""

    owner: str
    """Whose it is."""

    subject: str
    """The same, as they are known; empty without authentication."""

    jobs: int = 0
    """Created."""

    gpu_seconds: float = 0.0
    """That devices worked for them: seconds of the stages, times the devices that shared a span."""

    megapixels: float = 0.0
    """Of restored frames."""

    def __add__(self, other: "Usage") -> "Usage":
        return Usage(
            owner=self.owner, subject=self.subject or other.subject, jobs=self.jobs + other.jobs,
            gpu_seconds=self.gpu_seconds + other.gpu_seconds, megapixels=self.megapixels + other.megapixels,
        )  # fmt: skip


@dataclass(slots=True, kw_only=True)
class DeviceTime:
    """Adds up what one attempt at a span cost."""

    devices: float
    """That share the span."""

    seconds: float = 0.0
    """Of all of them."""

    def note(self, stage: str, seconds: float) -> None:
        """A stage took so long."""
        if stage in DEVICE_STAGES:
            self.seconds += seconds * self.devices


@dataclass(frozen=True, slots=True, kw_only=True)
class _Record:
    subject: str
    spans: Mapping[str, tuple[float, float]] = field(default_factory=dict)


class UsageBook:
    """Books what is used, and adds it up."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def began(self, job: Job) -> None:
        """A job is driven; it counts, however often that happens."""
        await self._book(job, "", 0.0, 0.0)

    async def span_done(self, job: Job, span_key: str, *, gpu_seconds: float, megapixels: float) -> None:
        """A span is restored; a second time changes nothing."""
        await self._book(job, span_key, gpu_seconds, megapixels)

    async def of(self, owner: str, month: str = "") -> Usage:
        """What an owner used in a month, YYYY-MM; empty: this one.

        Raises:
            InvalidOption: that is no month. StoreUnavailable.
        """
        found = await self._read(await self._store.keys(keys.usage(checked_month(month), owner)))
        return sum(found, Usage(owner=owner, subject=""))

    async def of_all(self, month: str = "") -> list[Usage]:
        """The same for everybody who used something, by subject."""
        total: dict[str, Usage] = {}
        for usage in await self._read(await self._store.keys(keys.usages(checked_month(month)))):
            total[usage.owner] = total[usage.owner] + usage if usage.owner in total else usage
        return sorted(total.values(), key=lambda usage: (usage.subject, usage.owner))

    async def _book(self, job: Job, span_key: str, gpu_seconds: float, megapixels: float) -> None:
        try:
            await self._write(job, {span_key: (gpu_seconds, megapixels)} if span_key else {})
        except ServiceError as error:
            # A job doesn't fail for its bill; the line has what is missing in it.
            _log.error(
                "what a job used can't be written: %s", error.message,
                extra={"job_id": job.job_id, "owner": job.owner, "gpu_seconds": gpu_seconds, "megapixels": megapixels},
            )  # fmt: skip

    async def _write(self, job: Job, more: Mapping[str, tuple[float, float]]) -> None:
        key = keys.job_usage(month_of(job.created_at), job.ref, job.created_at)
        for _ in range(_TRIES):
            record, tag = await self._record(key, job)
            new = {name: used for name, used in more.items() if name not in record.spans}
            if tag is not None and not new:
                return
            data = _to_json(_Record(subject=record.subject, spans={**record.spans, **new}))
            try:
                await self._store.put(key, data, if_absent=tag is None, if_match=tag)
                return
            except (AlreadyExists, WrongState):
                # Spans of one job are done at the same time.
                continue
        raise WrongState("too many write it at once")

    async def _record(self, key: str, job: Job) -> tuple[_Record, str | None]:
        try:
            data, tag = await self._store.get(key)
            return _from_json(data), tag
        except NotFound:
            return _Record(subject=job.subject), None

    async def _read(self, found: list[str]) -> list[Usage]:
        slots = asyncio.Semaphore(_AT_ONCE)

        async def read(key: str) -> Usage | None:
            async with slots:
                try:
                    record = _from_json((await self._store.get(key))[0])
                except (NotFound, ValueError):
                    _log.warning("a record of what a job used can't be read", extra={"key": key})
                    return None
            used = list(record.spans.values())
            return Usage(
                owner=keys.owner_of_usage(key), subject=record.subject, jobs=1,
                gpu_seconds=sum(seconds for seconds, _ in used), megapixels=sum(megapixels for _, megapixels in used),
            )  # fmt: skip

        return [usage for usage in await asyncio.gather(*map(read, found)) if usage is not None]


def month_of(seconds: float) -> str:
    """The month of a moment, seconds since 1970, as YYYY-MM in UTC."""
    return time.strftime("%Y-%m", time.gmtime(seconds))


def checked_month(month: str) -> str:
    """A month as YYYY-MM; empty: this one. Raises InvalidOption."""
    month = month or month_of(time.time())
    if not _MONTH.fullmatch(month):
        raise InvalidOption(f"{month!r} is no month; write it like 2027-01.", field="month")
    return month


def _to_json(record: _Record) -> bytes:
    return json.dumps({"schema_version": _SCHEMA_VERSION, "subject": record.subject, "spans": record.spans}).encode()


def _from_json(data: bytes) -> _Record:
    """Raises ValueError: another schema version, or no record."""
    found = json.loads(data)
    if not isinstance(found, dict) or found.get("schema_version") != _SCHEMA_VERSION:
        raise ValueError("not a record of this schema version")
    spans = {str(name): (float(seconds), float(megapixels)) for name, (seconds, megapixels) in found["spans"].items()}
    return _Record(subject=str(found["subject"]), spans=spans)
