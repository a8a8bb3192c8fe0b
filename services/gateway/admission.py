"""Whether one more job may wait, and how long it would: what is left of the others, and how fast the workers are. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from services.common.errors import QueueFull
from services.gateway.jobs import Job

_SOONEST_S, _LATEST_S = 1.0, 600.0
_UNKNOWN_S = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class QueueLimits:
    """How many jobs may wait or run."""

    jobs: int
    """Of everybody."""

    owner_jobs: int
    """Of one owner."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What is left of a job that has not ended."""

    job: Job
    """The job."""

    frames_done: int = 0
    """As far as this gateway knows."""

    @property
    def megapixels(self) -> float:
        """Of its result; 0 before it is planned."""
        plan = self.job.plan
        return max(0, plan.frames - self.frames_done) * plan.width * plan.height / 1e6 if plan else 0.0


def check_queue(active: Iterable[Left], owner: str, limits: QueueLimits, megapixels_per_second: float) -> None:
    """Raises QueueFull, with the time after which a place may be free, where one more job of an owner would be too many."""
    everybody = list(active)
    mine = [left for left in everybody if left.job.owner == owner]
    for jobs, limit, whose in ((mine, limits.owner_jobs, " of yours"), (everybody, limits.jobs, "")):
        if len(jobs) >= limit:
            raise QueueFull(
                f"{len(jobs)} jobs{whose} are waiting or running, as many as may; try again when some have ended.",
                retry_after_s=_until_one_ends(jobs, megapixels_per_second),
            )


def megapixels_before(active: Iterable[Left], owner: str, megapixels: float, *, preview: bool) -> float:
    """Work that the workers do before a new job of an owner is done, besides its own.

    Owners share the workers evenly, so of each other one at most as much is done meanwhile as the owner itself gets; and previews
    go before batch work.
    """
    by_owner: defaultdict[str, float] = defaultdict(float)
    first = 0.0
    for left in active:
        if left.job.request.preview and not preview:
            first += left.megapixels
        elif left.job.request.preview == preview:
            by_owner[left.job.owner] += left.megapixels
    mine = by_owner.pop(owner, 0.0)
    return first + mine + sum(min(theirs, mine + megapixels) for theirs in by_owner.values())


def seconds(megapixels: float, megapixels_per_second: float) -> float | None:
    """Time for some work; None where no speed was measured."""
    return megapixels / megapixels_per_second if megapixels_per_second > 0 else None


def _until_one_ends(jobs: list[Left], megapixels_per_second: float) -> float:
    # Those that are not planned yet are not the next to end.
    planned = [left.megapixels for left in jobs if left.job.plan]
    wait_s = seconds(min(planned, default=0.0), megapixels_per_second) if planned else None
    return _UNKNOWN_S if wait_s is None else min(max(wait_s, _SOONEST_S), _LATEST_S)
