import json
from pathlib import Path
from typing import Any

import pytest

from bench.chaos.audit import swept, truth_of, unexpected, wrongs
from bench.chaos.faults import Fault, Kind
from bench.chaos.fleet import DEADLY_FRAME
from bench.chaos.harm import Suffered
from bench.chaos.jobs import RECIPES, Failure, Order, Outcome, Recipe

SHORT = RECIPES[0]


def suffered(kind: Kind, began: float = 100.0, healed: float = 103.0) -> Suffered:
    return Suffered(fault=Fault(number=0, kind=kind, at_s=0, lasts_s=healed - began), began=began, healed=healed)


def failure(reason: str, began: float = 95.0, ended: float = 104.0) -> Failure:
    return Failure(reason=reason, message="So it was.", began=began, ended=ended)


def outcome(**values: Any) -> Outcome:
    return Outcome(**{"order": Order(number=1, recipe=SHORT, at_s=0), "began": 95.0, "ended": 104.0, "sha256": "a", **values})


@pytest.mark.parametrize(
    ("reason", "kinds", "true"),
    [
        ("StoreFull", [Kind.DISK_FULL], True),
        ("StoreFull", [Kind.STORE_SLOW], False),
        ("StoreUnavailable", [Kind.CUT_FROM_STORE], True),
        ("SpanFatal", [Kind.WORKER_KILLED, Kind.CUT_FROM_WORKER], False),
        ("SpanFatal", [Kind.WORKER_KILLED, Kind.CUT_FROM_WORKER, Kind.RANK_KILLED], True),
        ("InternalError", list(Kind), False),
    ],
)
def test_a_reason_is_true_where_enough_faults_give_it(reason: str, kinds: list[Kind], true: bool):
    assert (truth_of(failure(reason), [suffered(kind) for kind in kinds], deadly=False) == "") is true


def test_a_fault_before_or_after_a_job_explains_nothing():
    late, early = suffered(Kind.DISK_FULL, 110, 112), suffered(Kind.DISK_FULL, 10, 12)
    assert "no fault explains StoreFull: So it was." in truth_of(failure("StoreFull"), [late, early], deadly=False)


def test_what_ends_workers_must_fail_for_that():
    assert truth_of(failure("SpanFatal"), [], deadly=True) == ""
    assert truth_of(failure("InvalidVideo"), [], deadly=True)
    ends = Order(number=1, recipe=Recipe(name="ends", frames=DEADLY_FRAME + 1), at_s=0)
    assert wrongs([outcome(order=ends, failures=[failure("SpanFatal")])], [], {}) == []
    assert "should have failed" in wrongs([outcome(order=ends)], [], {})[0]


def test_results_are_compared_and_missing_ones_told():
    undisturbed = {SHORT.name: "a"}
    assert wrongs([outcome()], [], undisturbed) == []
    assert "undisturbed a" in wrongs([outcome(sha256="b")], [], undisturbed)[0]
    assert [line for line in wrongs([outcome(ended=0.0)], [], undisturbed) if "has not ended" in line]
    assert "JobNotFound" in wrongs([outcome(odd=["JobNotFound: gone"])], [], undisturbed)[0]


def test_only_errors_that_nobody_thought_of_are_unexpected(tmp_path: Path):
    def line(error: str) -> str:
        return json.dumps({"time": "t", "message": "m", "exception": f"Traceback (most recent call last):\n  x\n{error}"})

    log = tmp_path / "log"
    log.write_text("\n".join([line("services.common.errors.StoreFull: full"), '{"time": "t", "message": "well"}', "plain words"]))
    assert unexpected(log) == []
    log.write_text("\n".join([line("KeyError: 'x'"), "Traceback (most recent call last):", "ValueError: x"]))
    assert len(unexpected(log)) == 3


def test_what_only_a_sweep_removed_is_counted(tmp_path: Path):
    removed = "removed what nobody needs any more"
    lines = [{"message": removed, "kind": "lease"}, {"message": removed, "kind": "lease"}, {"message": "m", "kind": "lease"}]
    (tmp_path / "log").write_text("\n".join(["plain words", *(json.dumps(line) for line in lines)]))
    assert swept(tmp_path / "log") == {"lease": 2}
