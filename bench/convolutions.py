"""``python -m bench.convolutions``: the autoencoder's convolutions over time, as one 3-D and as one 2-D with taps as channels.

Every shape of a steady slice is timed once in both ways, on random frames and weights, by CUDA events (median). *Stacked* lays
three frames side by side as channels, so that a 2-D convolution sees them; writing them is part of its time, and shown apart.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Callable
from statistics import median
from unittest import mock

import torch
from torch import Tensor
from torch.nn import functional

from bench.gpu import CASES, DEVICE, DTYPE, Case
from bench.table import print_table
from services.inference.gpu.model.fast import vae as fast_vae
from services.inference.gpu.model.fast.convolution import convolve
from services.inference.gpu.model.kernels import Padding, choose_kernels
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.untrained import untrained_model
from services.inference.gpu.model.vae import VaeState
from services.inference.gpu.model.weights import Model

Shape = tuple[torch.Size, torch.Size, Padding]
"""Input (T, H, W, C), weight (O, C, taps, kh, kw), zeros around."""

_ROUNDS = 20


def main() -> None:
    """Find the shapes, time them, print."""
    parser = argparse.ArgumentParser(prog="python -m bench.convolutions", description=__doc__)
    parser.add_argument("--case", type=int, default=1, help="number of the clip size in bench.gpu")
    case = CASES[parser.parse_args().case]
    if not torch.cuda.is_available():
        sys.exit("bench.convolutions needs a CUDA GPU")
    model = untrained_model(SPECS["seedvr2-3b"], choose_kernels(DEVICE, DTYPE), DEVICE, DTYPE)
    rows = [row(shape, count) for shape, count in shapes_of(model, case).items()]
    head = ("input", "weight", "times", "3-D ms", "TFLOP/s", "stacked ms", "of these stacking", "stacked / 3-D")
    print_table(f"Convolutions of a steady slice, {case.width}x{case.height}, {torch.cuda.get_device_name()}", head, rows)


@torch.inference_mode()
def shapes_of(model: Model, case: Case) -> Counter[Shape]:
    """Convolutions over time of a steady encoder slice and a steady decoder slice, and how often each comes."""
    found: Counter[Shape] = Counter()
    factor, spatial = model.spec.vae.temporal_factor, model.spec.vae.spatial_factor
    height, width = (-(-side // model.spec.size_multiple) * model.spec.size_multiple for side in (case.height, case.width))
    frames = torch.rand((factor, 3, height, width), device=DEVICE, dtype=DTYPE)
    latents = torch.randn((1, height // spatial, width // spatial, model.spec.dit.latent_channels), device=DEVICE)
    encoder, decoder = VaeState(), VaeState()

    def noted(inputs: Tensor, weight: Tensor, *, padding: Padding = (0, 0), stride: int = 1) -> Tensor:
        if weight.ndim == 5 and weight.shape[2] == 3 and stride == 1:
            found[inputs.shape, weight.shape, padding] += 1
        return convolve(inputs, weight, padding=padding, stride=stride)

    for part in (frames[:1], frames, frames):
        model.vae.encode(part, encoder)
    for _ in range(2):
        model.vae.decode(latents, decoder)
    with mock.patch.object(fast_vae, "convolve", noted):
        model.vae.encode(frames, encoder)
        model.vae.decode(latents, decoder)
    return found


@torch.inference_mode()
def row(shape: Shape, count: int) -> tuple[str, ...]:
    """One line of the table. Raises SystemExit where the two ways differ."""
    size, weight_size, padding = shape
    inputs = torch.randn(size, device=DEVICE, dtype=DTYPE)
    weight = torch.randn(weight_size, device=DEVICE, dtype=DTYPE).mul_(0.02)
    solid = weight.contiguous(memory_format=torch.channels_last_3d)
    flat = weight.transpose(1, 2).flatten(1, 2).contiguous(memory_format=torch.channels_last)
    expected, got = convolve(inputs, solid, padding=padding), convolve_flat(stack(inputs), flat, padding)
    if (expected - got).float().norm() > 0.02 * expected.float().norm():
        sys.exit(f"{size} by {weight_size}: the two ways differ")
    three, stacking = timed(lambda: convolve(inputs, solid, padding=padding)), timed(lambda: stack(inputs))
    stacked = timed(lambda: convolve_flat(stack(inputs), flat, padding))
    operations = 2 * expected[..., 0].numel() * weight.numel()
    return (
        "x".join(map(str, size)), "x".join(map(str, weight_size)), str(count), f"{three:.2f}", f"{operations / three / 1e9:.0f}",
        f"{stacked:.2f}", f"{stacking:.2f}", f"{stacked / three:.2f}",
    )  # fmt: skip


def stack(inputs: Tensor) -> Tensor:
    """(T + 2, H, W, C) to (T, H, W, 3 · C): each frame beside the two before it."""
    return torch.cat([inputs[:-2], inputs[1:-1], inputs[2:]], dim=-1)


def convolve_flat(stacked: Tensor, weight: Tensor, padding: Padding) -> Tensor:
    """(T, H, W, 3 · C) to (T, H', W', O)."""
    return functional.conv2d(stacked.permute(0, 3, 1, 2), weight, padding=padding).permute(0, 2, 3, 1).contiguous()


def timed(work: Callable[[], Tensor]) -> float:
    """Milliseconds, the median of some rounds after a warm-up."""
    times = []
    for _ in range(_ROUNDS + 3):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        work()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end))
    return median(times[3:])


if __name__ == "__main__":
    main()
