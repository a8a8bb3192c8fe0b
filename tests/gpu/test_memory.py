"""On a GPU: what a worker chooses for its memory changes no byte, the prediction holds, and the device passes its checks."""

import gc
import itertools

import numpy as np
import pytest
import torch

from services.inference.gpu.memory import Machine, Setting, Workload, predict
from services.inference.gpu.model.kernels import choose_kernels
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.weights import Model, load_model
from services.inference.gpu.pipeline import RestoreSettings, SpanRestorer
from services.inference.gpu.verify import require, verify
from tests.unit.inference.gpu.goldens import NANO

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda", 0)
FRAMES, WIDTH, HEIGHT = 19, 640, 384


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(SPECS["nano"], NANO, GPU, torch.bfloat16)


def restored(model: Model, setting: Setting) -> np.ndarray:
    model.dit.offload(wanted=setting.offload)
    settings = RestoreSettings(
        width=WIDTH, height=HEIGHT, seed=0, first_frame=0, slice_latents=setting.slice_latents, park=setting.park
    )
    restorer = SpanRestorer(model, settings, on_stage=lambda *_: None, checkpoint=lambda: None)
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT // 2, WIDTH // 2, 3), dtype=np.uint8)
    return np.concatenate([*restorer.push(frames), *restorer.finish()])


@pytest.mark.parametrize("setting", [Setting(slice_latents=2, offload=True), Setting(slice_latents=2, offload=True, park=True)])
def test_what_waits_in_host_memory_changes_no_byte(model: Model, setting: Setting):
    expected = restored(model, Setting(slice_latents=2))
    assert np.array_equal(restored(model, setting), expected)
    assert np.array_equal(restored(model, Setting(slice_latents=2)), expected)


@pytest.mark.parametrize("setting", [Setting(slice_latents=2), Setting(slice_latents=2, offload=True, park=True)])
def test_a_span_that_stands_aside_for_another_leaves_it_the_device_and_loses_no_byte(model: Model, setting: Setting):
    expected, pauses, held = restored(model, setting), itertools.count(), list[int]()

    def let_another_go_first() -> None:
        if next(pauses) % 3 == 2:
            with restorer.aside():
                torch.cuda.synchronize()
                held.append(torch.cuda.memory_allocated())
                assert np.array_equal(restored(model, Setting(slice_latents=2)), expected)
            model.dit.offload(wanted=setting.offload)

    gc.collect()
    idle = torch.cuda.memory_allocated()
    model.dit.offload(wanted=setting.offload)
    settings = RestoreSettings(width=WIDTH, height=HEIGHT, seed=0, first_frame=0, slice_latents=2, park=setting.park)
    restorer = SpanRestorer(
        model, settings, on_stage=lambda *_: None, checkpoint=lambda: None, pause=let_another_go_first
    )  # fmt: skip
    frames = np.random.default_rng(0).integers(0, 256, (FRAMES, HEIGHT // 2, WIDTH // 2, 3), dtype=np.uint8)
    assert np.array_equal(np.concatenate([*restorer.push(frames), *restorer.finish()]), expected)
    assert len(held) >= 3
    # Latents of a window, and frames on their way to the host.
    assert max(held) < idle + (64 << 20)


def test_the_peak_is_what_was_predicted(model: Model):
    machine = Machine(dtype="bfloat16", passes=choose_kernels(GPU, torch.bfloat16).report["passes"])  # type: ignore[arg-type]
    setting = Setting(slice_latents=2)
    restored(model, setting)
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    restored(model, setting)
    workload = Workload(width=WIDTH, height=HEIGHT, source_pixels=WIDTH * HEIGHT // 4)
    predicted = predict(model.spec, machine, workload, setting).allocated
    assert torch.cuda.max_memory_allocated() == pytest.approx(predicted, rel=0.2, abs=64 << 20)


def test_this_gpu_passes_its_verification():
    found = verify(GPU, torch.bfloat16, 1 << 30)
    require(found.checks, found.device["device"])
    assert {"driver", "cuda", "capability", "bf16", "cudnn", "memory", "peers", "product", "conv3d"} == {
        c.name for c in found.checks
    }
