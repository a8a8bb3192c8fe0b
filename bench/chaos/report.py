"""What came of a run, as tables."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from bench.chaos.faults import Kind
from bench.chaos.harm import Suffered
from bench.chaos.jobs import Outcome
from bench.table import print_table

_HEAD = ("fault", "times", "jobs under way", "that went on", "slowest to go on, s")


@dataclass(slots=True, kw_only=True)
class Run:
    """A run at its end."""

    seed: int
    """Of faults and jobs."""

    outcomes: list[Outcome] = field(default_factory=list)
    """Of all jobs."""

    suffered: list[Suffered] = field(default_factory=list)
    """All faults."""

    wrong: list[str] = field(default_factory=list)
    """What should not be so; nothing: the run went well."""

    swept: Counter[str] = field(default_factory=Counter)
    """What only sweeps removed, by kind."""

    seconds: float = 0.0
    """From the first job to the last end."""


def show(run: Run) -> None:
    """Print tables, and what is wrong."""
    title = f"Seed {run.seed}: {len(run.suffered)} faults, {len(run.outcomes)} jobs, {run.seconds:.0f} s"
    print_table(title, _HEAD, [row for kind in Kind if (row := _row(kind, run))])
    print_table("What came of the jobs", ("end", "jobs"), _ends(run.outcomes))
    removed = ", ".join(f"{number} of kind {kind}" for kind, number in sorted(run.swept.items()))
    print(f"\nRemoved by sweeps alone: {removed or 'nothing'}.")
    for line in run.wrong:
        print(f"WRONG: {line}", flush=True)


def _row(kind: Kind, run: Run) -> tuple[str, ...] | None:
    faults = [each for each in run.suffered if each.fault.kind is kind]
    waits = [wait for fault in faults for wait in _waits(fault, run.outcomes)]
    went_on = [wait for wait in waits if wait is not None]
    slowest = f"{max(went_on):.1f}" if went_on else ""
    return (kind.value, str(len(faults)), str(len(waits)), str(len(went_on)), slowest) if faults else None


def _waits(fault: Suffered, outcomes: Sequence[Outcome]) -> list[float | None]:
    """For each job that was under way, after how many seconds its client heard that it goes on; None: never."""
    under_way = [each for each in outcomes if each.began < fault.began and (not each.ended or each.ended > fault.began)]
    return [_first_after(fault.began, [*each.moves, each.ended]) for each in under_way]


def _first_after(moment: float, moves: Sequence[float]) -> float | None:
    return min((move - moment for move in moves if move > moment), default=None)


def _ends(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    counts: dict[str, int] = {}
    for outcome in outcomes:
        counts[_end(outcome)] = counts.get(_end(outcome), 0) + 1
    return [(end, str(count)) for end, count in sorted(counts.items())]


def _end(outcome: Outcome) -> str:
    reasons = ", then ".join(failure.reason for failure in outcome.failures)
    if outcome.order.recipe.deadly:
        return f"FAILED: it ended three workers ({reasons})"
    if not outcome.sha256:
        return f"no result ({reasons})"
    return f"SUCCEEDED when asked for again, FAILED before ({reasons})" if reasons else "SUCCEEDED"
