"""On a GPU both paths give the reference's numbers, and half precision costs the fast one no more than the plain one."""

import gc
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from services.inference.gpu.model.dit import Clip, Dit
from services.inference.gpu.model.kernels import Kernels, choose_kernels
from services.inference.gpu.model.sampler import condition
from services.inference.gpu.model.spec import SPECS, ModelSpec
from services.inference.gpu.model.untrained import untrained_model
from services.inference.gpu.model.vae import Vae, VaeState
from services.inference.gpu.model.weights import Model, load_model
from services.inference.gpu.pipeline import RestoreSettings, SpanRestorer
from tests.unit.inference.gpu.goldens import NANO, TINY_VAE, nano, tensors, tiny_dit

if not torch.cuda.is_available():
    pytest.skip("needs a GPU", allow_module_level=True)

pytestmark = pytest.mark.gpu
GPU = torch.device("cuda")
FP32, BF16 = torch.float32, torch.bfloat16
PATHS = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fast"])
GOLDEN_VAE = tensors("vae/encode_decode")
ENCODE = sorted(key[:-2] for key in GOLDEN_VAE if key.startswith("enc.") and key.endswith(".x"))
DECODE = sorted(key[:-2] for key in GOLDEN_VAE if key.startswith("dec.") and key.endswith(".z"))


@pytest.fixture(autouse=True)
def exact_fp32():
    """TF32 off; memory of one test is given back before the next."""
    torch.backends.cudnn.allow_tf32 = False
    with torch.inference_mode():
        yield
    gc.collect()
    torch.cuda.empty_cache()


def on_gpu(values: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value.to(GPU) for key, value in values.items()}


def tiny_vae(kernels: Kernels) -> Vae:
    vae = Vae(TINY_VAE, kernels).requires_grad_(False)
    vae.load_state_dict(tensors("vae/tiny_vae"))
    return vae.to(GPU)


def run(step, pieces) -> Tensor:
    state = VaeState()
    return torch.cat([step(piece, state) for piece in pieces])


@PATHS
@pytest.mark.parametrize("rules", ["3b", "7b"])
@pytest.mark.parametrize("case", ["image", "video5", "wide", "pair0", "pair1"])
def test_velocities_are_those_of_the_reference(case: str, rules: str, fused: bool) -> None:
    dit = tiny_dit(rules, choose_kernels(GPU, FP32, fused=fused))
    inputs = on_gpu({key: tensors("dit/inputs")[f"{case}.{key}"] for key in ("noise", "lq", "txt", "timestep")})
    x = torch.cat([inputs["noise"], condition(inputs["lq"])], dim=-1)
    velocity = dit.to(GPU)(x, inputs["txt"], inputs["timestep"][0])
    pair = case.startswith("pair")
    golden = tensors(f"dit/tiny_{rules}_{'pair' if pair else case}")
    seen = velocity[:, ::3, ::5] if case in ("video5", "wide") else velocity
    torch.testing.assert_close(seen.cpu(), golden[f"v{case[-1]}" if pair else "v"], atol=2e-5, rtol=1e-4)


@PATHS
@pytest.mark.parametrize("rules", ["3b", "7b"])
def test_clips_in_one_call_do_not_see_each_other(rules: str, fused: bool) -> None:
    dit = tiny_dit(rules, choose_kernels(GPU, FP32, fused=fused)).to(GPU)
    inputs, golden = on_gpu(tensors("dit/inputs")), tensors(f"dit/tiny_{rules}_pair")
    clips = [
        Clip(
            torch.cat([inputs[f"{case}.noise"], condition(inputs[f"{case}.lq"])], dim=-1),
            inputs[f"{case}.txt"],
            inputs[f"{case}.timestep"][0],
        )
        for case in ("pair0", "pair1")
    ]
    for index, velocity in enumerate(dit.velocities(clips)):
        torch.testing.assert_close(velocity.cpu(), golden[f"v{index}"], atol=2e-5, rtol=1e-4)


@PATHS
@pytest.mark.parametrize("case", ENCODE)
def test_moments_are_those_of_the_reference_in_slices(case: str, fused: bool) -> None:
    vae = tiny_vae(choose_kernels(GPU, FP32, fused=fused))
    for x, moments in zip(GOLDEN_VAE[f"{case}.x"], GOLDEN_VAE[f"{case}.moments"], strict=True):
        frames = x.transpose(0, 1).to(GPU)
        for cuts in ([len(frames)], [1, *[4] * (len(frames) // 4)]):
            mine = run(vae.moments, frames.split(cuts))
            torch.testing.assert_close(mine.cpu(), moments.transpose(0, 1), atol=2e-4, rtol=0)


@PATHS
@pytest.mark.parametrize("case", DECODE)
def test_frames_are_those_of_the_reference_in_slices(case: str, fused: bool) -> None:
    vae = tiny_vae(choose_kernels(GPU, FP32, fused=fused))
    for z, y in zip(GOLDEN_VAE[f"{case}.z"], GOLDEN_VAE[f"{case}.y"], strict=True):
        latents = z.permute(1, 2, 3, 0).to(GPU) * TINY_VAE.scaling_factor
        for size in (1, 2, len(latents)):
            mine = run(vae.decode, latents.split(size))
            torch.testing.assert_close(mine.cpu(), y.transpose(0, 1), atol=2e-4, rtol=0)


def with_kernels(model: Model, dtype: torch.dtype, *, fused: bool) -> Model:
    """The same values in another type and on another path."""
    kernels = choose_kernels(GPU, dtype, fused=fused)
    with torch.device("meta"):
        dit, vae = Dit(model.spec.dit, kernels), Vae(model.spec.vae, kernels)
    for mine, theirs in ((dit, model.dit), (vae, model.vae)):
        values = {
            key: value if ".ada." in key or "vid_out_ada" in key else value.to(dtype)
            for key, value in theirs.state_dict().items()
        }
        mine.load_state_dict(values, assign=True)
        mine.requires_grad_(False)
    return replace(model, dit=dit, vae=vae, text=model.text.to(dtype), dtype=dtype, kernels=kernels.report)


def distance(mine: Tensor, exact: Tensor) -> float:
    return float((mine.double() - exact.double()).norm() / exact.double().norm())


@pytest.mark.parametrize("name", ["seedvr2-3b", "seedvr2-7b"])
def test_half_precision_costs_the_fast_path_no_more_than_the_plain_one(name: str) -> None:
    spec: ModelSpec = SPECS[name]
    fast = untrained_model(spec, choose_kernels(GPU, BF16, fused=True), GPU, BF16)
    plain, exact = with_kernels(fast, BF16, fused=False), with_kernels(fast, FP32, fused=False)
    generator = torch.Generator(GPU).manual_seed(1)
    frames = (torch.rand((9, 3, 256, 448), generator=generator, device=GPU) * 2 - 1).to(BF16)
    latents = torch.randn((4, 32, 56, 16), generator=generator, device=GPU).to(BF16)
    tokens = torch.randn((3, 60, 106, 33), generator=generator, device=GPU).to(BF16)
    time = torch.tensor(1000.0, device=GPU)
    stages = {
        "encode": lambda model: run(model.vae.moments, frames.to(model.dtype).split([1, 4, 4])),
        "decode": lambda model: run(model.vae.decode, latents.to(model.dtype).split([1, 1, 2])),
        "transformer": lambda model: model.dit(tokens.to(model.dtype), model.text, time),
    }
    for part, stage in stages.items():
        reference = stage(exact)
        of_plain, of_fast = (distance(stage(model), reference) for model in (plain, fast))
        print(f"{name} {part}: relative L2 to plain fp32: plain bf16 {of_plain:.2e}, fast bf16 {of_fast:.2e}")
        assert of_fast <= of_plain * 1.05
        assert of_fast < 0.03


def restore(model: Model, clip: np.ndarray, *, width: int, height: int) -> np.ndarray:
    settings = RestoreSettings(width=width, height=height, seed=3, first_frame=0)
    restorer = SpanRestorer(model, settings, on_stage=lambda *_: None, checkpoint=lambda: None)
    return np.concatenate([*restorer.push(clip), *restorer.finish()])


@PATHS
def test_a_span_restored_on_the_gpu_is_that_of_the_cpu_up_to_rounding(fused: bool) -> None:
    clip = np.random.default_rng(0).integers(0, 256, (19, 6, 8, 3), dtype=np.uint8).repeat(8, axis=1).repeat(8, axis=2)
    there = with_kernels(load_model(SPECS["nano"], NANO, GPU, FP32), FP32, fused=fused)
    mine, expected = (restore(model, clip, width=96, height=72) for model in (there, nano()))
    difference = np.abs(mine.astype(int) - expected.astype(int))
    assert mine.shape == expected.shape
    assert difference.max() <= 1
    assert (difference > 0).mean() <= 0.002


def test_memory_does_not_grow_with_the_clip() -> None:
    model = untrained_model(SPECS["seedvr2-3b"], choose_kernels(GPU, BF16), GPU, BF16)
    peaks = []
    for slices in (3, 3, 8):
        encoder, decoder = VaeState(), VaeState()
        torch.cuda.reset_peak_memory_stats()
        for index in range(slices):
            frames = torch.rand((4 if index else 1, 3, 192, 320), device=GPU, dtype=BF16)
            model.vae.decode(model.vae.encode(frames, encoder), decoder)
        peaks.append(torch.cuda.max_memory_allocated())
        del encoder, decoder
    assert peaks[2] <= peaks[1] * 1.01
