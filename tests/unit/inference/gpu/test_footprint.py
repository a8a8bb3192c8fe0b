"""The formulas against what the code allocates, at real sizes: tensors on the meta device cost nothing."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from services.inference.gpu import footprint
from services.inference.gpu.model.attention import AttentionLayout
from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.fast.dit import FastDit
from services.inference.gpu.model.fast.vae import FastVae
from services.inference.gpu.model.kernels import Kernels, Packing, convolve_time, rms_norm
from services.inference.gpu.model.spec import SPECS, ModelSpec
from services.inference.gpu.model.vae import Vae, VaeState
from services.inference.messages import Passes
from tests.unit.inference.gpu.allocations import Allocations, MetaFrameOps, MetaTokenOps

META = torch.device("meta")
CASES = pytest.mark.parametrize(
    ("name", "height", "width"), [("seedvr2-3b", 720, 1280), ("seedvr2-7b", 1088, 1920), ("nano", 704, 1280)]
)
PASSES = pytest.mark.parametrize("passes", ["plain", "fused"])


def attend(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
    """As a fused kernel: nothing but its result."""
    return torch.empty_like(q)


KERNELS = Kernels(attend=attend, rms_norm=rms_norm, convolve_time=convolve_time, report={})
Slice = Callable[[Tensor, VaeState], Tensor]


def vae_of(spec: ModelSpec) -> Vae:
    """In bf16. Its attention is left out: on the meta device it would be computed as no GPU does."""
    with META:
        vae = Vae(replace(spec.vae, mid_attention=False), KERNELS).to(torch.bfloat16).requires_grad_(False)
    for parameter in vae.parameters():
        if parameter.ndim == 5:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last_3d)
    return vae


def steady(run: Slice, slices: Iterator[Tensor]) -> tuple[int, int]:
    """State, and the peak beside it, of the third slice of a stream."""
    state = VaeState()
    with torch.inference_mode(), Allocations() as allocations:
        for x in slices:
            allocations.restart()
            run(x, state)
        del x
        return allocations.bytes, allocations.peak - allocations.bytes


@CASES
@PASSES
def test_encoder_and_decoder_hold_what_is_predicted(name: str, height: int, width: int, passes: Passes):
    spec = SPECS[name]
    vae, count, factor = vae_of(spec), spec.slice_latents, spec.vae.temporal_factor
    fast = FastVae(vae, MetaFrameOps())
    encode, decode = (fast.moments, fast.decode) if passes == "fused" else (vae.moments, vae.decoder)
    frames = [count * factor - (factor - 1 if i == 0 else 0) for i in range(3)]
    pixels = (torch.empty((n, 3, height, width), dtype=torch.bfloat16, device=META) for n in frames)
    shape = (count, spec.vae.latent_channels, height // spec.vae.spatial_factor, width // spec.vae.spatial_factor)
    latents = (torch.empty(shape, dtype=torch.bfloat16, device=META) for _ in range(3))
    predicted = footprint.Vae(spec.vae, passes, 2, count)
    for part, run, slices in (
        (predicted.encoder(height, width), encode, pixels),
        (predicted.decoder(height, width), decode, latents),
    ):
        state, work = steady(run, slices)
        assert part.state == pytest.approx(state, rel=0.01)
        assert part.work == pytest.approx(work, rel=0.05)


@CASES
@PASSES
def test_the_transformer_holds_what_is_predicted(name: str, height: int, width: int, passes: Passes):
    spec = SPECS[name]
    latents, rows, columns = spec.window_latents, height // spec.vae.spatial_factor, width // spec.vae.spatial_factor
    with META:
        dit = Dit(spec.dit, KERNELS).to(torch.bfloat16).requires_grad_(False)
    layouts = layouts_of(dit, (latents, rows // spec.dit.patch, columns // spec.dit.patch), spec.text_tokens)
    dit._layouts = lambda *_: layouts
    x = torch.empty((latents, rows, columns, spec.dit.input_channels), dtype=torch.bfloat16, device=META)
    text = torch.empty((spec.text_tokens, spec.dit.text_width), dtype=torch.bfloat16, device=META)
    run = dit if passes == "plain" else fast_dit(dit, layouts)
    with torch.inference_mode(), Allocations() as allocations:
        run(x, text, torch.tensor(1000.0, device=META))
        measured = allocations.peak
    tokens = footprint.Tokens(spec.dit, latents, rows, columns, spec.text_tokens, 1)
    assert tokens.work(passes, 2) == pytest.approx(measured + turns_of(layouts), rel=0.03)


def layouts_of(dit: Dit, grid: tuple[int, int, int], text_tokens: int) -> tuple[AttentionLayout, AttentionLayout]:
    """Laid out on the CPU, because windows are counted; then without memory."""
    moved = []
    for layout in dit._layouts(grid, text_tokens, torch.device("cpu")):
        layout.windows.video, layout.windows.text = layout.windows.video.to(META), layout.windows.text.to(META)
        moved.append(replace(layout, video_turns=layout.video_turns.to(META), text_turns=layout.text_turns.to(META)))
    return moved[0], moved[1]


def turns_of(layouts: tuple[AttentionLayout, AttentionLayout]) -> int:
    return sum(layout.video_turns.nbytes + layout.windows.video.nbytes for layout in layouts)


def fast_dit(dit: Dit, layouts: tuple[AttentionLayout, AttentionLayout]) -> Callable[[Tensor, Tensor, Tensor], Tensor]:
    fast = FastDit(dit, MetaTokenOps(), attend)
    return lambda x, text, timestep: fast(x, text, timestep, layouts, lambda: None)


def parameter_bytes(module: nn.Module) -> int:
    return sum(p.nbytes for p in module.parameters())


@pytest.mark.parametrize("name", sorted(SPECS))
def test_the_parameters_take_what_is_predicted(name: str):
    spec = SPECS[name]
    with META:
        dit, vae = Dit(spec.dit, KERNELS).to(torch.bfloat16), Vae(spec.vae, KERNELS).to(torch.bfloat16)
    assert footprint.dit_weights(spec, "plain", 2, offload=False) == pytest.approx(parameter_bytes(dit), rel=0.01)
    assert footprint.Vae(spec.vae, "plain", 2, 1).weights() == pytest.approx(parameter_bytes(vae), rel=0.01)


def test_fused_kernels_derive_what_is_predicted():
    spec = SPECS["seedvr2-3b"]
    vae = vae_of(spec)
    with torch.inference_mode(), Allocations() as allocations:
        fast = FastVae(vae, MetaFrameOps())
        derived = allocations.bytes
        del fast
    more = [footprint.Vae(spec.vae, passes, 2, 1).weights() for passes in ("fused", "plain")]
    assert more[0] - more[1] == pytest.approx(derived, rel=0.05)
