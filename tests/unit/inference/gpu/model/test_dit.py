from dataclasses import replace
from functools import cache

import pytest
import torch
from torch import Tensor

from services.common.errors import JobCancelled
from services.inference.gpu.model.dit import Clip, Dit, GeluMlp, sinusoid
from services.inference.gpu.model.kernels import Packing
from services.inference.gpu.model.sampler import Guidance, VelocityAt, condition, sample
from services.inference.gpu.model.vae import VaeState
from tests.unit.inference.gpu.goldens import KERNELS, nano, tensors, tiny_dit

Golden = dict[str, Tensor]
CLOSE = {"atol": 2e-5, "rtol": 1e-4}
STAGES = {"atol": 5e-5, "rtol": 1e-4}
RULES = pytest.mark.parametrize("rules", ["3b", "7b"])


@cache
def _inputs() -> Golden:
    return tensors("dit/inputs")


def _clip(case: str) -> Clip:
    of = {key: _inputs()[f"{case}.{key}"] for key in ("noise", "lq", "txt", "timestep")}
    return Clip(torch.cat([of["noise"], condition(of["lq"])], dim=-1), of["txt"], of["timestep"][0])


def _run(dit: Dit, case: str) -> Tensor:
    velocity: Tensor = dit(*_clip(case))
    return velocity


def test_the_sinusoid_is_that_of_the_reference() -> None:
    golden = tensors("dit/timestep_embedding")
    torch.testing.assert_close(sinusoid(golden["t"], 256), golden["sinusoid"], rtol=0, atol=1e-4)


@RULES
@pytest.mark.parametrize("case", ["image", "video5", "wide"])
def test_every_stage_gives_the_reference_values(case: str, rules: str) -> None:
    golden, dit = tensors(f"dit/tiny_{rules}_{case}"), tiny_dit(rules)
    stride = int(golden["token_stride"])
    streams: list[tuple[Tensor, Tensor]] = []
    for block in dit.blocks:
        block.register_forward_hook(lambda module, inputs, outputs: streams.append((outputs[0].clone(), outputs[1].clone())))
    velocity = _run(dit, case)
    torch.testing.assert_close(dit.emb_in(_inputs()[f"{case}.timestep"][0])[None], golden["emb"], **STAGES)
    torch.testing.assert_close(dit.txt_in(_inputs()[f"{case}.txt"]), golden["txt_in"], **STAGES)
    for i, (video, text) in enumerate(streams):
        torch.testing.assert_close(video[::stride], golden[f"block{i}.vid"], **STAGES)
        if i < 3:
            torch.testing.assert_close(text, golden[f"block{i}.txt"], **STAGES)
    torch.testing.assert_close(velocity if case == "image" else velocity[:, ::3, ::5], golden["v"], **CLOSE)


@RULES
@pytest.mark.parametrize("sample_index", [0, 1])
def test_clips_of_other_sizes_texts_and_times_give_the_reference_values(sample_index: int, rules: str) -> None:
    golden = tensors(f"dit/tiny_{rules}_pair")
    torch.testing.assert_close(_run(tiny_dit(rules), f"pair{sample_index}"), golden[f"v{sample_index}"], **CLOSE)


@RULES
def test_clips_in_one_call_do_not_see_each_other(rules: str) -> None:
    golden, dit = tensors(f"dit/tiny_{rules}_pair"), tiny_dit(rules)
    for order in ([0, 1], [1, 0], [1, 1, 0]):
        together = dit.velocities([_clip(f"pair{index}") for index in order])
        assert len(together) == len(order)
        for index, velocity in zip(order, together, strict=True):
            torch.testing.assert_close(velocity, golden[f"v{index}"], **CLOSE)


def test_weights_of_a_block_serve_all_clips_before_the_next_one() -> None:
    dit, order = tiny_dit(), []
    for index, block in enumerate(dit.blocks):
        block.register_forward_hook(lambda module, inputs, outputs, index=index: order.append(index))
    dit.velocities([_clip("pair0"), _clip("pair1")])
    assert order == [0, 0, 1, 1, 2, 2, 3, 3]


@RULES
def test_attention_receives_normed_and_rotated_windows_with_text_behind(rules: str) -> None:
    golden, seen = tensors(f"dit/tiny_{rules}_image"), []

    def attend(q: Tensor, k: Tensor, v: Tensor, packing: Packing) -> Tensor:
        seen.append([q, k, v, KERNELS.attend(q, k, v, packing)])
        return seen[-1][-1]

    _run(tiny_dit(rules, replace(KERNELS, attend=attend)), "image")
    for name, value in zip("qkvo", seen[0], strict=True):
        torch.testing.assert_close(value, golden[f"block0.packed_{name}"], **STAGES)


@RULES
@pytest.mark.parametrize(
    ("name", "steps", "options"),
    [
        ("x0.steps1", 1, None),
        ("x0.steps4", 4, None),
        ("x0.steps3.cfg2", 3, {"scale": 2.0}),
        ("x0.steps3.cfg2.partial0.5.rescale0.7", 3, {"scale": 2.0, "partial": 0.5, "rescale": 0.7}),
    ],
)
def test_sampling_gives_the_reference_latents(name: str, steps: int, options: dict[str, float] | None, rules: str) -> None:
    dit, inputs = tiny_dit(rules), _inputs()
    conditioned = condition(inputs["image.lq"])

    def velocity_by(text: str) -> VelocityAt:
        return lambda x, t: dit(torch.cat([x, conditioned], dim=-1), inputs[text], torch.tensor(t))

    guidance = None if options is None else Guidance(negative_at=velocity_by("image.neg_txt"), **options)
    restored = sample(velocity_by("image.txt"), inputs["image.noise"], steps, guidance=guidance)
    torch.testing.assert_close(restored, tensors(f"dit/tiny_{rules}_pipeline")[name], **CLOSE)


@pytest.mark.parametrize("case", ["image", "clip5"])
def test_nano_gives_the_reference_velocity(case: str) -> None:
    model, golden = nano(), tensors(f"nano/{case}")
    low_quality = model.vae.encode(golden["frames"].float() / 255 * 2 - 1, VaeState())
    inputs = torch.cat([golden["noise"], condition(low_quality)], dim=-1)
    velocity = model.dit(inputs, model.text, torch.tensor(1000.0))
    torch.testing.assert_close(velocity if case == "image" else velocity[:, ::3, ::5], golden["v"], atol=2e-4, rtol=1e-4)
    restored = model.vae.decode(golden["noise"] - velocity, VaeState())
    torch.testing.assert_close(restored if case == "image" else restored[::2], golden["restored"], atol=2e-4, rtol=0)


def test_work_can_stop_before_any_block() -> None:
    calls = 0

    def checkpoint() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise JobCancelled("enough")

    with pytest.raises(JobCancelled):
        tiny_dit()(torch.zeros(1, 4, 4, 33), torch.zeros(2, 40), torch.tensor(1000.0), checkpoint)
    assert calls == 3


@RULES
def test_bf16_stays_close_to_fp32(rules: str) -> None:
    exact, clip = _run(tiny_dit(rules), "image"), _clip("image")
    dit = tiny_dit(rules).to(torch.bfloat16)
    rough = dit(clip.x.bfloat16(), clip.text.bfloat16(), clip.timestep)
    assert rough.dtype == torch.bfloat16
    assert (rough.float() - exact).norm() / exact.norm() < 2e-2


def test_the_plain_mlp_uses_the_tanh_form_of_gelu() -> None:
    mlp, x = GeluMlp(2, 2).requires_grad_(False), torch.tensor([[2.5, -1.5]])
    for linear in (mlp.proj_in, mlp.proj_out):
        linear.weight.copy_(torch.eye(2))
        linear.bias.zero_()
    torch.testing.assert_close(mlp(x), torch.nn.functional.gelu(x, approximate="tanh"), atol=1e-6, rtol=0)
    assert (mlp(x) - torch.nn.functional.gelu(x)).abs().max() > 1e-4
