import pytest

from services.cli.plan import plan_words
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb


@pytest.fixture
def plan() -> pb.PlanSummary:
    plan = pb.PlanSummary(
        source_width=640, source_height=360, width=1280, height=720, frames=250, spans=2, model="nano", container="mp4"
    )
    plan.duration.FromSeconds(10)
    return plan


def test_a_plan_is_told_in_a_line(plan: pb.PlanSummary):
    assert plan_words(plan) == "640x360 to 1280x720, 250 frames (0:10) in 2 spans; nano, mp4"


def test_time_and_memory_are_told_where_they_are_known(plan: pb.PlanSummary):
    plan.frames = plan.spans = 1
    plan.predicted_time.FromSeconds(80)
    plan.predicted_memory_bytes = 5_240_000_000
    assert plan_words(plan) == ("640x360 to 1280x720, 1 frame (0:10) in 1 span; nano, mp4; about 1:20, 5.2 GB of device memory")
