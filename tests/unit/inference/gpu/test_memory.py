import json
import subprocess
import sys
from dataclasses import replace

import pytest

from services.common.errors import GpuOutOfMemory
from services.inference.gpu.memory import (
    Machine,
    Setting,
    Workload,
    choose,
    largest_pixels,
    least_bytes,
    line,
    predict,
    settings_of,
)
from services.inference.gpu.model.spec import SPECS

GB = 10**9
SPEC = SPECS["seedvr2-3b"]
FUSED = Machine(dtype="bfloat16", passes="fused")
HD, FULL_HD = Workload(width=1280, height=720), Workload(width=1920, height=1080)
FASTEST, *_, LEANEST = settings_of(SPEC, FUSED)


def allocated(workload: Workload, machine: Machine = FUSED, setting: Setting = FASTEST) -> float:
    return predict(SPEC, machine, workload, setting).allocated / GB


@pytest.mark.parametrize(("workload", "latents", "measured"), [(HD, 2, 22.9), (HD, 6, 23.0), (HD, 21, 23.4), (FULL_HD, 6, 42.7)])
def test_the_prediction_is_what_was_measured_on_a_gpu(workload: Workload, latents: int, measured: float):
    assert allocated(replace(workload, window_latents=latents)) == pytest.approx(measured, rel=0.03)


def test_each_setting_takes_less_than_the_one_before():
    peaks = [allocated(FULL_HD, setting=setting) for setting in settings_of(SPEC, FUSED)]
    assert peaks == sorted(peaks, reverse=True)
    assert peaks[0] - peaks[1] > 5
    assert peaks[1] - peaks[2] > 7


def test_more_ranks_have_less_each_and_larger_types_more():
    assert allocated(FULL_HD, replace(FUSED, ranks=2)) < 0.7 * allocated(FULL_HD)
    assert allocated(HD, replace(FUSED, dtype="float32")) > 1.8 * allocated(HD)
    assert allocated(HD, replace(FUSED, passes="plain")) > 1.3 * allocated(HD)


def test_tiles_work_in_less_memory_and_their_overlap_costs():
    def decode(**tiles: int) -> int:
        return predict(SPEC, FUSED, replace(FULL_HD, **tiles), LEANEST).decode

    assert decode(tile_size=512, tile_overlap=64) < decode()
    assert decode(tile_size=512, tile_overlap=64) < decode(tile_size=512, tile_overlap=256)
    assert decode(tile_size=4096) == decode()


def test_longer_windows_and_larger_sources_take_more():
    wide = replace(FULL_HD, window_latents=60)
    assert predict(SPEC, FUSED, wide, FASTEST).denoise > 2 * predict(SPEC, FUSED, FULL_HD, FASTEST).denoise - 25 * GB
    huge = replace(HD, source_pixels=120 * 10**6)
    assert predict(SPEC, FUSED, huge, FASTEST).colour > predict(SPEC, FUSED, HD, FASTEST).colour


def test_the_fastest_setting_that_fits_is_chosen():
    settings = settings_of(SPEC, FUSED)
    needed = [predict(SPEC, FUSED, FULL_HD, setting).needed for setting in settings]
    assert [choose(SPEC, FUSED, FULL_HD, count) for count in needed] == list(settings)
    assert choose(SPEC, FUSED, FULL_HD, needed[0] - 1) == settings[1]
    assert choose(SPEC, FUSED, FULL_HD, 141 * GB, settings=settings[-1:]) == LEANEST


def test_what_does_not_fit_is_refused_with_the_numbers():
    with pytest.raises(GpuOutOfMemory) as caught:
        choose(SPEC, FUSED, FULL_HD, 24 * GB)
    least = predict(SPEC, FUSED, FULL_HD, LEANEST).needed / GB
    assert f"1920×1080 need {least:.1f} GB of memory with seedvr2-3b at the least" in caught.value.message
    assert "a device of this worker has 24.0 GB for it" in caught.value.message


def test_a_rank_on_a_cpu_chooses_among_slices_only():
    machine = Machine(dtype="float32", passes="stacked")
    assert settings_of(SPECS["nano"], machine) == (Setting(slice_latents=2), Setting(slice_latents=1))
    assert settings_of(SPEC, machine) == (Setting(slice_latents=1),)


def test_ranks_that_share_a_slice_take_a_latent_for_every_two_of_them():
    first = [settings_of(SPEC, replace(FUSED, ranks=ranks))[0].slice_latents for ranks in (1, 2, 4, 8)]
    assert first == [1, 1, 2, 4]


def test_the_largest_frame_fits_and_the_next_larger_does_not():
    pixels = largest_pixels(SPEC, FUSED, 80 * GB)
    height = round((pixels * 9 / 16) ** 0.5 / SPEC.size_multiple) * SPEC.size_multiple
    assert predict(SPEC, FUSED, Workload(width=pixels // height, height=height), LEANEST).needed <= 80 * GB
    more = height + 2 * SPEC.size_multiple
    assert predict(SPEC, FUSED, Workload(width=more * 16 // 9, height=more), LEANEST).needed > 80 * GB
    assert largest_pixels(SPEC, FUSED, 1 * GB) == 0


def test_the_line_over_pixels_is_near_the_prediction():
    base, per_pixel = line(SPEC, FUSED)
    for workload in (HD, FULL_HD, Workload(width=3840, height=2160)):
        needed = predict(SPEC, FUSED, workload, FASTEST).needed
        assert base + per_pixel * workload.width * workload.height == pytest.approx(needed, rel=0.05)


def test_a_device_needs_at_least_the_weights_that_stay_on_it():
    assert 1 * GB < least_bytes(SPEC, FUSED) < 4 * GB
    assert least_bytes(SPECS["seedvr2-7b"], FUSED) > least_bytes(SPEC, FUSED)


@pytest.mark.parametrize(("model", "setting"), [("nano", 0), ("nano", 1), ("tiny", 0)])
def test_a_process_takes_about_as_much_as_was_predicted(model: str, setting: int):
    command = [sys.executable, "-m", "tests.unit.inference.gpu.memory_child", model, str(setting)]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True, timeout=150).stdout)
    assert found["frames"] == 10
    assert 0.7 < found["peak"] / found["predicted"] < 1.1
