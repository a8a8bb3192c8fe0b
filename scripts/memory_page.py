"""The page docs/memory.md, with its tables from the prediction that workers use."""

from services.inference.gpu.memory import Machine, Workload, largest_pixels, predict, settings_of
from services.inference.gpu.model.spec import SPECS

_MODELS = ("seedvr2-3b", "seedvr2-7b")
_SIZES = ((1280, 720), (1920, 1080), (2560, 1440), (3840, 2160))
_UNIT = 16
_DEVICES = (24, 48, 80, 141)
_WAYS = ("all on the GPU", "blocks in host memory", "blocks and state in host memory")

HEAD = """# How much memory does what need?

A worker knows before it begins. `services/inference/gpu/memory.py` predicts the peak of a span from the model's layers, the
size, the window of latents, the compute type, the number of GPUs that share the span, and how the work is done. What doesn't
fit is refused with the numbers before anything is started, by the gateway when a job is planned or created, and by the worker
when it is sent a span.

## On a GPU

GB that must be free on each GPU, bf16, fused kernels, the model's own window; 2 GPUs share a span's rows and tokens."""

MIDDLE = """The largest 16:9 frames that fit (1 GB = 10⁹ bytes; what the driver takes must be subtracted first):"""

TAIL = """\
The prediction counts the weights, the state that encoder and decoder carry from slice to slice, the widest moment of a slice
or of a window, the latents that are held, and 6 % for what the allocator loses. It doesn't depend on how long the video is:
a picture counts like frames of a video, though it may need much less.
Measured on an H200 with `python -m bench.gpu_memory` (bf16, random weights, one window of 21 frames, GB in tensors). In a clip
of one window the encoder's state is gone before the decoder begins, so the first two ways stay below the prediction; with
several windows both live, and the fast path of 3B took 23.4 GB at 1280x720 x 121 ([performance.md](performance.md)),
predicted 22.8.

| model | output | way | predicted | measured | ms/frame |
| --- | --- | --- | --- | --- | --- |
| seedvr2-3b | 1280x720 | all on the GPU | 22.8 | 19.3 | 59.2 |
| seedvr2-3b | 1280x720 | blocks in host memory | 17.1 | 13.5 | 59.0 |
| seedvr2-3b | 1280x720 | blocks and state in host memory | 13.4 | 13.5 | 58.8 |
| seedvr2-3b | 1920x1080 | all on the GPU | 42.0 | 33.9 | 133.6 |
| seedvr2-3b | 1920x1080 | blocks in host memory | 36.3 | 28.2 | 133.1 |
| seedvr2-3b | 1920x1080 | blocks and state in host memory | 28.0 | 28.2 | 133.9 |
| seedvr2-7b | 1280x720 | all on the GPU | 32.5 | 28.9 | 63.6 |
| seedvr2-7b | 1280x720 | blocks in host memory | 17.5 | 14.0 | 64.7 |
| seedvr2-7b | 1280x720 | blocks and state in host memory | 13.9 | 14.0 | 64.2 |
| seedvr2-7b | 1920x1080 | all on the GPU | 51.7 | 43.6 | 147.1 |
| seedvr2-7b | 1920x1080 | blocks in host memory | 36.8 | 28.6 | 147.1 |
| seedvr2-7b | 1920x1080 | blocks and state in host memory | 28.4 | 28.6 | 147.1 |

Without fused kernels (no Triton) a span takes about half as much again.

## On a CPU

`nano` in fp32 takes about 0.4 GB and {nano:.1f} KB for each pixel of an output frame, of the host's memory or of what the
container may use: {hd} GB at 1280x720. The frames of a window count too. Several ranks on one CPU count on an
equal share of its memory each.

## What happens when memory is tight

A worker chooses by itself what no pixel depends on, the fastest that fits, in this order:

1. Everything on the device, slices of as many latents as are fastest.
2. Slices of one latent.
3. The transformer's blocks in pinned host memory: each comes two blocks ahead of its turn, on a stream of its own. The host
   needs room for the weights (7 GB for 3B, 16 GB for 7B; PyTorch rounds up what it pins).
4. Besides, the state of encoder and decoder take turns on the device, once a window.

Where the device is the host only the first two make a difference. Slices change nothing but the last digit of rounding: an
8-bit sample differs by at most 1, in at most 0.2 % of all. The others change no byte.

What does change pixels (weight format, compute type, tiling, window length and overlap, context) is in a job's plan and never
changes behind its back.

If memory runs out all the same, because something else took it, the process lives on and everything of the span is freed. The
span ends with `GpuOutOfMemory` and the word to send it again; the gateway does, without counting it as a failed attempt,
segments that are stored are kept, and the worker restores frames of that size with the leanest of the ways above from then
on. If that runs out too, the attempt has failed; after `SEEDVR2_GATEWAY_SPAN_ATTEMPTS` of these the job fails with the
reason. GPUs that share a span end it together and are ready again after they have loaded the model.
`seedvr2_out_of_memory_total` counts all of it.

## Before a worker is ready

Each rank looks at its device before it loads a model: driver, CUDA 12.1 or later, compute capability, bfloat16, cuDNN 9.15 or
later (older ones convolve 3-D frames wrongly, or in many times the memory), free memory, whether the GPUs of the pod reach
each other. It then tries a matrix product and one 3-D convolution of real size against fp64 on the CPU. A device that fails
isn't ready; the reason stands in the worker's status and log, and `seedvr2_device_check_passed` is 0 for the check. GPUs that
don't reach each other directly are told but not refused: ranks find another way, only slower."""


def memory_page() -> str:
    """The whole page."""
    nano = [_needed("nano", Machine(dtype="float32", passes="stacked"), w, h, 0) for w, h in ((640, 384), (1280, 720))]
    slope = (nano[1] - nano[0]) / (1280 * 720 - 640 * 384) / 1e3
    tail = TAIL.format(nano=slope, hd=f"{nano[1] / 1e9:.1f}")
    return "\n\n".join([HEAD, _sizes(), MIDDLE, _largest(), tail]) + "\n"


def _sizes() -> str:
    rows = [("model", "GPUs", "way", *(f"{w}x{h}" for w, h in _SIZES)), ("---",) * (3 + len(_SIZES))]
    for model in _MODELS:
        for ranks in (1, 2):
            machine = Machine(dtype="bfloat16", passes="fused", ranks=ranks)
            for number, way in enumerate(_WAYS):
                needed = (_needed(model, machine, w, h, number) for w, h in _SIZES)
                rows.append((model, str(ranks), way, *(f"{count / 1e9:.0f}" for count in needed)))
    return _table(rows)


def _largest() -> str:
    rows = [("model", *(f"{gb} GB" for gb in _DEVICES)), ("---",) * (1 + len(_DEVICES))]
    machine = Machine(dtype="bfloat16", passes="fused")
    for model in _MODELS:
        pixels = (largest_pixels(SPECS[model], machine, gb * 10**9) for gb in _DEVICES)
        rows.append((model, *(_size(count) for count in pixels)))
    return _table(rows)


def _needed(model: str, machine: Machine, width: int, height: int, setting: int) -> int:
    spec = SPECS[model]
    return predict(spec, machine, Workload(width=width, height=height), settings_of(spec, machine)[setting]).needed


def _size(pixels: int) -> str:
    height = round((pixels * 9 / 16) ** 0.5 / _UNIT) * _UNIT
    return f"{pixels // height}x{height}" if pixels else "none"


def _table(rows: list[tuple[str, ...]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)
