from dataclasses import replace

import pytest

from bench.gpu_failures import Outcome

RIGHT = Outcome(
    name="kill", told_s=0.1, error="WorkerBroken: …", back_s=9.0, same=True, left=0, before_mib=[500], after_mib=[510]
)


def test_a_failure_that_left_nothing_behind_is_right():
    assert RIGHT.is_right
    assert RIGHT.cells()[-1] == "yes"


@pytest.mark.parametrize("wrong", [{"error": ""}, {"same": False}, {"left": 1}, {"after_mib": [600]}])
def test_what_is_left_behind_or_went_unsaid_is_wrong(wrong: dict[str, object]):
    assert replace(RIGHT, **wrong).cells()[-1] == "NO"
