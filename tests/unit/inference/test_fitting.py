from dataclasses import replace

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import GpuOutOfMemory, WorkerBroken
from services.common.media import SpanTask
from services.common.metrics import InferenceMetrics
from services.inference.fitting import Fitting
from services.inference.gpu.memory import Machine, Setting
from services.inference.models import describe
from tests.unit.inference.clips import Clip, make_clip, plan_for, read_clip, task_for
from tests.unit.inference.test_turns import READY

PLENTY = 1 << 40
FAST, LEAN = Setting(slice_latents=2), Setting(slice_latents=1)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(make_clip(frames=2))


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
def fitting(registry: CollectorRegistry) -> Fitting:
    return Fitting("nano", InferenceMetrics(registry))


def task(clip: Clip, **plan: object) -> SpanTask:
    return task_for(clip, plan=replace(plan_for(clip), **plan))


def test_a_span_that_fits_gets_the_fastest_setting(fitting: Fitting, clip: Clip):
    assert fitting.choose(task(clip), PLENTY) == FAST


def test_a_span_that_fits_in_no_way_is_refused_and_counted(fitting: Fitting, clip: Clip, registry: CollectorRegistry):
    with pytest.raises(GpuOutOfMemory, match=r"3840×2160 need \d+\.\d GB"):
        fitting.choose(task(clip, width=3840, height=2160), 2 << 30)
    assert registry.get_sample_value("seedvr2_out_of_memory_total", {"outcome": "refused"}) == 1


def test_what_ran_out_of_memory_once_gets_the_leanest_setting(fitting: Fitting, clip: Clip, registry: CollectorRegistry):
    with pytest.raises(GpuOutOfMemory, match="Sent again, the span is") as caught, fitting.learning(task(clip), FAST):
        raise GpuOutOfMemory("It didn't fit.")
    assert caught.value.retry_after_s
    assert fitting.choose(task(clip), PLENTY) == LEAN
    assert fitting.choose(task(clip, width=640), PLENTY) == FAST
    assert registry.get_sample_value("seedvr2_out_of_memory_total", {"outcome": "leaner"}) == 1


def test_where_nothing_leaner_is_left_the_error_is_final(fitting: Fitting, clip: Clip, registry: CollectorRegistry):
    with pytest.raises(GpuOutOfMemory, match=r"^It didn't fit\.$") as caught, fitting.learning(task(clip), LEAN):
        raise GpuOutOfMemory("It didn't fit.")
    assert caught.value.retry_after_s is None
    assert registry.get_sample_value("seedvr2_out_of_memory_total", {"outcome": "failed"}) == 1


def test_other_errors_teach_nothing(fitting: Fitting, clip: Clip):
    with pytest.raises(WorkerBroken), fitting.learning(task(clip), FAST):
        raise WorkerBroken("gone")
    assert fitting.choose(task(clip), PLENTY) == FAST


def test_callers_are_told_how_much_fits(fitting: Fitting):
    fitting.machine = Machine(dtype="float32", passes="stacked")
    model = fitting.announce(describe("nano", READY), 8 << 30)
    assert 10**6 < model.max_output_pixels < 10**7
    assert model.memory_base_bytes > 300 << 20
    assert 1000 < model.memory_bytes_per_pixel < 10000
