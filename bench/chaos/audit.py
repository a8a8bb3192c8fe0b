"""What is looked at afterwards: results, reasons, what is left in the store and of leases, and what gateways logged."""

import contextlib
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.chaos.faults import Kind
from bench.chaos.fleet import PREFIX, Fleet
from bench.chaos.harm import Suffered
from bench.chaos.jobs import DEADLY, Failure, Outcome
from services.common.errors import all_errors
from services.gateway import keys
from services.gateway.leases.records import holder_of
from tests.s3 import client_of

_AWAY = {Kind.STORE_KILLED, Kind.STORE_SILENT, Kind.STORE_SLOW, Kind.STORE_ERRORS, Kind.CUT_FROM_STORE, Kind.CLOCK_JUMP}
_WORKERS = {Kind.WORKER_KILLED, Kind.RANK_KILLED, Kind.CUT_FROM_WORKER, Kind.GATEWAY_STOPPED}
_TRUE: dict[str, tuple[set[Kind], int]] = {
    "StoreFull": ({Kind.STORE_FULL, Kind.DISK_FULL}, 1),
    "StoreUnavailable": (_AWAY, 1),
    "WorkerBroken": (_WORKERS, 1),
    "WorkerUnavailable": (_WORKERS, 1),
    "ModelNotReady": ({Kind.RANK_KILLED, Kind.WORKER_KILLED}, 1),
    "DeadlinePassed": ({Kind.CUT_FROM_WORKER, Kind.GATEWAY_STOPPED}, 1),
    "SpanFatal": (_WORKERS, 3),
}
"""By reason: what can make it true, and how often that must have happened meanwhile."""

_LATE_S = 20.0
"""How long after it is healed a fault may still be felt: tries and waits that began meanwhile."""

_KEPT_OBJECTS = (PREFIX + keys.USAGE, PREFIX + keys.POOLS)
"""What owners used, and what pools served, is kept when jobs are gone."""

_KEPT_LEASES = ("gateways/sweep",)
"""Leases that are for no job: who looks for what has expired."""

_EXPECTED = re.compile(rf"services\.common\.errors\.({'|'.join(all_errors())})\b")


def truth_of(failure: Failure, suffered: Iterable[Suffered], *, deadly: bool) -> str:
    """Nothing where a job failed for a reason that a fault gives; otherwise what is wrong with it."""
    if deadly and failure.reason in DEADLY:
        return ""
    kinds, least = _TRUE.get(failure.reason, (set(), 1))
    meanwhile = [
        each for each in suffered
        if each.fault.kind in kinds and each.began < failure.ended and each.healed + _LATE_S > failure.began
    ]  # fmt: skip
    return "" if len(meanwhile) >= least else f"no fault explains {failure.reason}: {failure.message}"


def wrongs(outcomes: Sequence[Outcome], suffered: Sequence[Suffered], undisturbed: Mapping[str, str]) -> list[str]:
    """What is wrong with the ends of jobs, a line each."""
    found = []
    for outcome in outcomes:
        recipe = outcome.order.recipe
        texts = [*outcome.odd, *(truth_of(each, suffered, deadly=recipe.deadly) for each in outcome.failures)]
        if recipe.deadly and (not outcome.failures or outcome.failures[-1].reason not in DEADLY):
            texts.append("it ends workers, and should have failed")
        if not recipe.deadly and outcome.sha256 != undisturbed[recipe.name]:
            texts.append(f"its result has SHA-256 {outcome.sha256 or '(none)'}, undisturbed {undisturbed[recipe.name]}")
        if not outcome.ended:
            texts.append("it has not ended")
        found += [f"job {outcome.order.number} ({recipe.name}): {text}" for text in texts if text]
    return found


def left_objects(fleet: Fleet) -> list[str]:
    """What is in the bucket, parts that never became an object included; a line for each job, upload and span."""
    client, bucket = client_of(fleet.server.s3), fleet.server.s3.bucket
    names = (str(each.object_name) for each in client.list_objects(bucket, PREFIX, recursive=True))
    objects = [name for name in names if not name.startswith(_KEPT_OBJECTS)]
    # The client has no public method for this.
    parts = client._list_multipart_uploads(bucket, prefix=PREFIX).uploads
    objects += [f"{each.object_name} (parts)" for each in parts]
    places: dict[str, list[str]] = {}
    for name in objects:
        places.setdefault(name.rpartition("/")[0], []).append(name)
    return [f"{len(names)} objects like {names[0]}" for names in places.values()]


async def left_leases(fleet: Fleet) -> list[str]:
    """Leases of jobs. Presences of gateways that were killed are removed by the others in time."""
    records, _ = await fleet.cluster.api.list_all(fleet.cluster.leases, "seedvr2.io/lease=job")
    named = {each["metadata"]["annotations"]["seedvr2.io/job"]: holder_of(each) for each in records}
    return [f"the lease of {job}, held by {holder or 'nobody'}" for job, holder in named.items() if job not in _KEPT_LEASES]


def swept(log: Path) -> Counter[str]:
    """What a gateway's sweeps removed because nobody needed it any more, by kind."""
    return Counter(line["kind"] for line in _lines(log) if line["message"] == "removed what nobody needs any more")


def unexpected(log: Path) -> list[str]:
    """Lines of a service's log that tell of something that nobody thought of."""
    return [text for line in log.read_text(errors="replace").splitlines() if (text := _unexpected_line(line))]


def _lines(log: Path) -> Iterator[dict[str, Any]]:
    for line in log.read_text(errors="replace").splitlines():
        with contextlib.suppress(ValueError):
            yield json.loads(line)


def _unexpected_line(line: str) -> str:
    try:
        known = json.loads(line)
    except ValueError:
        return line if "Traceback" in line or re.match(r"\w+(\.\w+)*(Error|Exception)\b", line) else ""
    trace = known.get("exception", "")
    last = trace.rstrip().rpartition("\n")[2]
    return f"{known['time']} {known['message']}\n{trace}" if trace and not _EXPECTED.match(last) else ""
