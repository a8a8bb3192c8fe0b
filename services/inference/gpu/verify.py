"""Whether a device can be trusted with a model, found out before one is loaded. Takes a few seconds at most.

What versions and abilities must be is judged from :class:`GpuFacts`; arithmetic is tried: one matrix product and one 3-D
convolution of a size that occurs, because PyTorch and cuDNN have had pairs of versions that computed wrong values or took
many times the memory (PyTorch 2.9.0, cuDNN 9.8 to 9.14).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from services.common.errors import WorkerBroken
from services.inference.gpu import nvml
from services.inference.gpu.room import available_bytes
from services.inference.messages import DeviceCheck, RankChecked

LEAST_CUDA = (12, 1)
LEAST_CUDNN = 91500
LEAST_CAPABILITY = {torch.bfloat16: (8, 0)}
_OLDEST_CAPABILITY = (7, 0)

_TOLERANCES = {torch.bfloat16: 1e-2, torch.float16: 2e-3, torch.float32: 2e-3, torch.float64: 1e-9}
"""Relative L2 against fp64; TF32 may stand for fp32 on a GPU."""

_SAMPLES = 2048
_MOST_COPIES = 6.0
"""A convolution may take so many times the memory of its input; unfolded into columns it takes 27 times."""


def verify(device: torch.device, dtype: torch.dtype, needed_bytes: int, neighbours: int = 0) -> RankChecked:
    """Look at a device and try its arithmetic; ``needed_bytes`` must be free, beside those of ``neighbours`` on a CPU."""
    arithmetic = try_arithmetic(device, dtype)
    if device.type != "cuda":
        left = available_bytes(device, neighbours)
        memory = _check("memory", left >= needed_bytes, f"{_gb(left)} free", f"the model needs {_gb(needed_bytes)} at the least")
        return RankChecked(device={"device": "cpu", "torch": torch.__version__}, checks=(*arithmetic, memory))
    torch.cuda.empty_cache()
    facts = look_at(device)
    names = {
        "device": facts.name, "driver": facts.driver, "cuda": facts.cuda, "cudnn": _cudnn(facts.cudnn),
        "capability": _dotted(facts.capability), "torch": torch.__version__,
    }  # fmt: skip
    return RankChecked(device=names, checks=(*judge(facts, dtype, needed_bytes), *arithmetic))


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuFacts:
    """What PyTorch and the driver say of a GPU."""

    name: str
    """Of the GPU."""

    driver: str
    """Version; empty where it is not known."""

    driver_cuda: int
    """Newest CUDA that the driver supports, 12040 for 12.4; 0 where it is not known."""

    cuda: str
    """That PyTorch was built with, such as 12.8; empty for none."""

    capability: tuple[int, int]
    """Compute capability."""

    bf16: bool
    """Whether it computes in bfloat16 without emulating it."""

    cudnn: int
    """Version, 91900 for 9.19."""

    free_bytes: int
    """Of its memory."""

    total_bytes: int
    """Of its memory."""

    peers: dict[int, bool]
    """Whether it reaches the memory of each other GPU of this machine, by number."""

    nvlinks: int | None
    """NVLink connections that are up; None where it is not known."""


def look_at(device: torch.device) -> GpuFacts:
    """Ask PyTorch and the driver."""
    properties = torch.cuda.get_device_properties(device)
    free, total = torch.cuda.mem_get_info(device)
    others = [index for index in range(torch.cuda.device_count()) if index != device.index]
    return GpuFacts(
        name=properties.name, driver=nvml.driver_version(), driver_cuda=nvml.driver_cuda(),
        cuda=torch.version.cuda or "", capability=torch.cuda.get_device_capability(device),
        bf16=torch.cuda.is_bf16_supported(including_emulation=False),
        cudnn=torch.backends.cudnn.version() or 0,  # type: ignore[no-untyped-call]
        free_bytes=free, total_bytes=total,
        peers={index: torch.cuda.can_device_access_peer(device, index) for index in others},
        nvlinks=nvml.nvlinks(f"GPU-{properties.uuid}"),
    )  # fmt: skip


def judge(facts: GpuFacts, dtype: torch.dtype, needed_bytes: int) -> list[DeviceCheck]:
    """What versions and abilities are good for; ``needed_bytes`` must be free."""
    least = LEAST_CAPABILITY.get(dtype, _OLDEST_CAPABILITY)
    # Where nothing is known of the driver, PyTorch has found it good enough all the same.
    new_enough = not facts.driver_cuda or _version(facts.cuda)[0] * 1000 <= facts.driver_cuda
    return [
        _check("driver", new_enough, f"driver {facts.driver or 'unknown'}, for CUDA {_short(facts.driver_cuda)}",
               f"PyTorch needs CUDA {facts.cuda}: update the driver"),
        _check("cuda", _version(facts.cuda) >= LEAST_CUDA, f"CUDA {facts.cuda or 'none'}",
               f"at least {_dotted(LEAST_CUDA)} is needed: install another PyTorch"),
        _check("capability", facts.capability >= least, f"compute capability {_dotted(facts.capability)}",
               f"at least {_dotted(least)} is needed for {_name(dtype)}"),
        _check("bf16", facts.bf16 or dtype is not torch.bfloat16, "bfloat16" if facts.bf16 else "no bfloat16",
               "the GPU only emulates it: choose another compute type"),
        _check("cudnn", facts.cudnn >= LEAST_CUDNN, f"cuDNN {_cudnn(facts.cudnn)}",
               f"at least {_cudnn(LEAST_CUDNN)} is needed: older ones convolve 3-D frames wrongly or slowly"),
        _check("memory", facts.free_bytes >= needed_bytes, f"{_gb(facts.free_bytes)} of {_gb(facts.total_bytes)} free",
               f"the model needs {_gb(needed_bytes)} at the least: free the GPU, or take a larger one"),
        _peers(facts),
    ]  # fmt: skip


def _peers(facts: GpuFacts) -> DeviceCheck:
    # Ranks find another way, only slower.
    far = [str(index) for index, near in facts.peers.items() if not near]
    links = "NVLink unknown" if facts.nvlinks is None else f"{facts.nvlinks} NVLinks up"
    reach = f"no direct way to GPU {', '.join(far)}" if far else f"reaches {len(facts.peers)} other GPUs directly"
    return DeviceCheck(name="peers", passed=not far, required=False, detail=f"{reach}, {links}")


def _check(name: str, passed: bool, found: str, otherwise: str) -> DeviceCheck:
    return DeviceCheck(name=name, passed=passed, detail=found if passed else f"{found}; {otherwise}")


def try_arithmetic(device: torch.device, dtype: torch.dtype) -> list[DeviceCheck]:
    """A matrix product and a convolution, compared with fp64 on the CPU."""
    return [_try("product", _product_error, device, dtype), _try("conv3d", _convolution_error, device, dtype)]


_Trial = Callable[[torch.device, torch.dtype], tuple[float, str]]
"""Gives a relative error, and what else is wrong."""


def _try(name: str, trial: _Trial, device: torch.device, dtype: torch.dtype) -> DeviceCheck:
    try:
        with torch.inference_mode():
            error, fault = trial(device, dtype)
    except RuntimeError as failure:
        return DeviceCheck(name=name, passed=False, detail=f"it doesn't run: {str(failure).splitlines()[0]}")
    good = error <= _TOLERANCES[dtype]
    return _check(name, good and not fault, f"relative error {error:.1e}", fault or "that is wrong: this device can't be used")


def _product_error(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    size = 1024 if device.type == "cuda" else 128
    a, b = (_random((size, size), device, dtype, seed) for seed in range(2))
    return _relative((a @ b).cpu().double(), a.cpu().double() @ b.cpu().double()), ""


def _convolution_error(device: torch.device, dtype: torch.dtype) -> tuple[float, str]:
    """A slice of the decoder's third level at 720p; on a CPU, of far smaller frames."""
    channels, height, width = (256, 360, 640) if device.type == "cuda" else (16, 24, 32)
    x = _random((1, channels, 6, height, width), device, dtype, 0).contiguous(memory_format=torch.channels_last_3d)
    weight = _random((channels, channels, 3, 3, 3), device, dtype, 1) * (27 * channels) ** -0.5
    before = _start_peak(device)
    y = functional.conv3d(x, weight.contiguous(memory_format=torch.channels_last_3d), padding=(0, 1, 1))
    copies = (_peak(device) - before) / x.nbytes
    fault = f"it takes {copies:.0f} times its input's memory" if copies > _MOST_COPIES else ""
    return _relative(*_sampled(x, weight, y)), fault


def _sampled(x: Tensor, weight: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Some positions of the result, and what they must be; corners among them."""
    _, _, frames, height, width = y.shape
    generator = torch.Generator().manual_seed(2)
    t, h, w = (torch.randint(0, side, (_SAMPLES,), generator=generator) for side in (frames, height, width))
    h[:2], w[:2] = torch.tensor([0, height - 1]), torch.tensor([0, width - 1])
    padded = functional.pad(x[0], (1, 1, 1, 1))
    t, h, w = (index.to(x.device) for index in (t, h, w))
    taps = [padded[:, t + i, h + j, w + k] for i in range(3) for j in range(3) for k in range(3)]
    seen = torch.stack(taps, 1).cpu().double()
    expected = torch.einsum("cks,ock->os", seen, weight.flatten(2).cpu().double())
    return y[0, :, t, h, w].cpu().double(), expected


def _start_peak(device: torch.device) -> int:
    if device.type != "cuda":
        return 0
    torch.cuda.reset_peak_memory_stats(device)
    return torch.cuda.memory_allocated(device)


def _peak(device: torch.device) -> int:
    return torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0


def require(checks: Iterable[DeviceCheck], where: str) -> None:
    """Raises WorkerBroken where a check failed that has to pass."""
    failed = [f"{check.name}: {check.detail}" for check in checks if check.required and not check.passed]
    if failed:
        raise WorkerBroken(f"{where} failed {len(failed)} of its checks. {'. '.join(failed)}.")


def _random(shape: tuple[int, ...], device: torch.device, dtype: torch.dtype, seed: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator(device).manual_seed(seed), device=device).to(dtype)


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(".")[:2]) if text else (0,)


def _dotted(version: Iterable[int]) -> str:
    return ".".join(map(str, version))


def _short(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}" if version else "unknown"


def _cudnn(version: int) -> str:
    return f"{version // 10000}.{version % 10000 // 100}" if version else "none"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"
