from dataclasses import replace

import pytest
import torch

from services.common.errors import WorkerBroken
from services.inference.gpu.verify import GpuFacts, judge, require, try_arithmetic, verify
from services.inference.messages import DeviceCheck

CPU = torch.device("cpu")
GOOD = GpuFacts(
    name="NVIDIA H200", driver="580.159.04", driver_cuda=13000, cuda="13.0", capability=(9, 0), bf16=True, cudnn=91900,
    free_bytes=140 << 30, total_bytes=141 << 30, peers={1: True}, nvlinks=18,
)  # fmt: skip


def failed(facts: GpuFacts, dtype: torch.dtype = torch.bfloat16, needed_bytes: int = 9 << 30) -> dict[str, str]:
    return {check.name: check.detail for check in judge(facts, dtype, needed_bytes) if not check.passed}


def test_a_good_gpu_passes_every_check():
    assert failed(GOOD) == {}
    found = {check.name: check.detail for check in judge(GOOD, torch.bfloat16, 0)}
    assert found["driver"] == "driver 580.159.04, for CUDA 13.0"
    assert found["peers"] == "reaches 1 other GPUs directly, 18 NVLinks up"


@pytest.mark.parametrize(
    ("change", "check", "words"),
    [
        ({"driver_cuda": 12040}, "driver", "for CUDA 12.4; PyTorch needs CUDA 13.0: update the driver"),
        ({"cuda": "11.8"}, "cuda", "CUDA 11.8; at least 12.1 is needed"),
        ({"cuda": ""}, "cuda", "CUDA none; at least 12.1"),
        ({"capability": (7, 5)}, "capability", "compute capability 7.5; at least 8.0 is needed for bfloat16"),
        ({"bf16": False}, "bf16", "no bfloat16; the GPU only emulates it"),
        ({"cudnn": 91002}, "cudnn", "cuDNN 9.10; at least 9.15 is needed"),
        ({"free_bytes": 2 << 30}, "memory", "2.1 GB of 151.4 GB free; the model needs 9.7 GB at the least"),
        ({"peers": {1: True, 2: False}}, "peers", "no direct way to GPU 2"),
    ],
)
def test_what_is_not_as_it_must_be_is_said_in_words(change: dict[str, object], check: str, words: str):
    found = failed(replace(GOOD, **change))
    assert list(found) == [check]
    assert words in found[check]


def test_other_types_ask_for_less():
    assert failed(replace(GOOD, capability=(7, 5), bf16=False), torch.float16) == {}


def test_only_required_checks_keep_a_rank_from_being_used():
    require([DeviceCheck(name="peers", passed=False, required=False, detail="far")], "GPU 0")
    with pytest.raises(WorkerBroken, match=r"GPU 0 failed 1 of its checks\. cudnn: too old\."):
        require(
            [DeviceCheck(name="cudnn", passed=False, detail="too old"), DeviceCheck(name="bf16", passed=True, detail="")], "GPU 0"
        )


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_arithmetic_of_this_machine_is_right(dtype: torch.dtype):
    checks = try_arithmetic(CPU, dtype)
    assert [check.name for check in checks] == ["product", "conv3d"]
    assert all(check.passed for check in checks), checks


def test_a_cpu_is_verified_as_well():
    found = verify(CPU, torch.float32, 1 << 20)
    assert [check.name for check in found.checks] == ["product", "conv3d", "memory"]
    assert all(check.passed for check in found.checks)
    assert found.device == {"device": "cpu", "torch": torch.__version__}
    (memory,) = [check for check in verify(CPU, torch.float32, 1 << 60).checks if not check.passed]
    assert "the model needs 1152921504.6 GB at the least" in memory.detail


class Wrong(torch.overrides.TorchFunctionMode):
    """PyTorch whose convolutions are wrong in one frame, or fail."""

    def __init__(self, error: Exception | None = None) -> None:
        super().__init__()
        self._error = error

    def __torch_function__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        if function is not torch.nn.functional.conv3d:
            return result
        if self._error is not None:
            raise self._error
        result[:, :, 1] *= 1.1
        return result


def test_a_convolution_that_is_wrong_is_found():
    with Wrong():
        (conv,) = [check for check in try_arithmetic(CPU, torch.float32) if not check.passed]
    assert conv.name == "conv3d"
    assert "that is wrong: this device can't be used" in conv.detail


def test_a_convolution_that_does_not_run_is_no_crash():
    with Wrong(RuntimeError("CUDNN_STATUS_NOT_INITIALIZED\nmore")):
        (conv,) = [check for check in try_arithmetic(CPU, torch.float32) if not check.passed]
    assert conv.detail == "it doesn't run: CUDNN_STATUS_NOT_INITIALIZED"
