"""Random faults under a fleet with jobs, as ``python -m bench.chaos`` does them, few enough for every day."""

from pathlib import Path

import pytest

from bench.chaos import report, run
from bench.chaos.faults import Kind, Shape
from bench.chaos.report import Run

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(420)]

SEED = 1
_TAIL_LINES = 15


async def test_jobs_end_as_if_nothing_had_happened_or_say_truly_why_not(tmp_path: Path):
    # Each kind once.
    plan = run.Plan(seed=SEED, faults=len(Kind), jobs=20, within_s=45.0, patience_s=180.0, shape=Shape())
    done = await run.run(plan, tmp_path)
    report.show(done)
    assert not done.wrong, _told(done, tmp_path)
    assert {each.fault.kind for each in done.suffered} == set(Kind)
    assert sum(bool(each.sha256) for each in done.outcomes) == plan.jobs - 1, "all but the one that ends workers"


def _told(done: Run, directory: Path) -> str:
    """What is wrong, how to have it again, and the ends of all logs."""
    logs = [f"--- {log.parent.name}\n" + "\n".join(_tail(log)) for log in sorted(directory.glob("*/log"))]
    again = f"again: python -m bench.chaos --seed {SEED} --faults {len(Kind)} --jobs 20 --minutes 0.75"
    return "\n".join([*done.wrong, again, *logs])


def _tail(log: Path) -> list[str]:
    return [line[:300] for line in log.read_text(errors="replace").splitlines()[-_TAIL_LINES:]]
