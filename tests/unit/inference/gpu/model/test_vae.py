import pytest
import torch
from torch import Tensor, nn

from services.inference.gpu.model.kernels import group_norm_silu
from services.inference.gpu.model.vae import Conv, Downsampler, Upsampler, VaeState, posterior
from tests.unit.inference.gpu.goldens import KERNELS, full_vae, nano, tensors, tiny_vae

CLOSE = {"atol": 5e-5, "rtol": 0}
ENCODE = sorted(key[:-2] for key in tensors("vae/encode_decode") if key.startswith("enc.") and key.endswith(".x"))
DECODE = sorted(key[:-2] for key in tensors("vae/encode_decode") if key.startswith("dec.") and key.endswith(".z"))


def _frames_first(x: Tensor) -> Tensor:
    """(1, C, T, H, W) to (T, C, H, W)."""
    return x[0].transpose(0, 1)


@pytest.mark.parametrize("case", ENCODE)
def test_moments_are_those_of_the_reference_in_one_pass_and_in_slices(case: str) -> None:
    golden, vae = tensors("vae/encode_decode"), tiny_vae()
    for x, moments in zip(golden[f"{case}.x"], golden[f"{case}.moments"], strict=True):
        frames, expected = x.transpose(0, 1), moments.transpose(0, 1)
        torch.testing.assert_close(vae.moments(frames, VaeState()), expected, **CLOSE)
        state, rest = VaeState(), frames[1:].split(4) if len(frames) > 1 else ()
        sliced = torch.cat([vae.moments(part, state) for part in (frames[:1], *rest)])
        torch.testing.assert_close(sliced, expected, **CLOSE)


@pytest.mark.parametrize("case", DECODE)
@pytest.mark.parametrize("latents_a_slice", [1, 2, 5])
def test_frames_are_those_of_the_reference_whatever_the_slices(case: str, latents_a_slice: int) -> None:
    golden, vae = tensors("vae/encode_decode"), tiny_vae()
    for z, y in zip(golden[f"{case}.z"], golden[f"{case}.y"], strict=True):
        state, latents = VaeState(), z.permute(1, 2, 3, 0) * vae.spec.scaling_factor
        frames = torch.cat([vae.decode(part, state) for part in latents.split(latents_a_slice)])
        torch.testing.assert_close(frames, y.transpose(0, 1), **CLOSE)


def test_an_image_goes_there_and_back() -> None:
    golden, vae = tensors("vae/encode_decode"), tiny_vae()
    mean = vae.encode(golden["image.x"], VaeState())
    torch.testing.assert_close(mean.permute(0, 3, 1, 2) / vae.spec.scaling_factor, golden["image.mean_squeezed"], **CLOSE)
    torch.testing.assert_close(vae.decode(mean, VaeState()), golden["image.y_squeezed"], **CLOSE)


def test_moments_are_the_mean_and_spread_of_the_reference() -> None:
    golden = tensors("vae/encode_decode")
    mean, deviation = posterior(golden["posterior.moments"][0].transpose(0, 1))
    assert mean.equal(_frames_first(golden["posterior.mean"]))
    torch.testing.assert_close(deviation, _frames_first(golden["posterior.std"]))
    torch.testing.assert_close(2 * deviation.log(), _frames_first(golden["posterior.logvar"]))


def test_the_real_structure_at_its_real_size_gives_the_reference_values() -> None:
    golden, vae = tensors("vae/full_config"), full_vae()
    for case in ("t1_24x16", "t5_16x24"):
        moments = vae.moments(_frames_first(golden[f"{case}.x"]), VaeState())
        torch.testing.assert_close(moments, _frames_first(golden[f"{case}.moments"]), **CLOSE)
        latents = _frames_first(golden[f"{case}.z"]).permute(0, 2, 3, 1) * vae.spec.scaling_factor
        torch.testing.assert_close(vae.decode(latents, VaeState()), _frames_first(golden[f"{case}.y"]), **CLOSE)


def test_every_recorded_stage_gives_the_reference_values() -> None:
    golden, vae = tensors("vae/stages"), tiny_vae()
    seen: dict[str, Tensor] = {}
    for name, module in vae.named_modules():
        module.register_forward_hook(lambda module, inputs, output, name=name: seen.update({name: output.clone()}))
    vae.moments(_frames_first(golden["x"]), VaeState())
    vae.decode(_frames_first(golden["z"]).permute(0, 2, 3, 1) * vae.spec.scaling_factor, VaeState())
    stages = [key for key in golden if "." in key and not key.endswith("conv_norm_out")]
    assert len(stages) > 5
    for stage in stages:
        expected = golden[stage] if golden[stage].ndim == 4 else _frames_first(golden[stage])
        torch.testing.assert_close(seen[stage], expected, **CLOSE)


@pytest.mark.parametrize("name", ["conv_k333_s111", "conv_k111", "down_space", "down_spacetime", "up_space", "up_spacetime"])
def test_single_layers_give_the_reference_values_in_one_pass_and_in_slices(name: str) -> None:
    golden = {key[len(name) + 1 :]: value for key, value in tensors("vae/units").items() if key.startswith(name + ".")}
    layer = _layer(name, golden)
    torch.testing.assert_close(layer(_frames_first(golden["in_all"]), VaeState()), _frames_first(golden["out_all"]), **CLOSE)
    for prefix in ("", "short."):
        state, i = VaeState(), 0
        while f"{prefix}in{i}" in golden:
            out = layer(_frames_first(golden[f"{prefix}in{i}"]), state)
            torch.testing.assert_close(out, _frames_first(golden[f"{prefix}out{i}"]), **CLOSE)
            state.started, i = True, i + 1
        assert i or prefix


def _layer(name: str, golden: dict[str, Tensor]) -> nn.Module:
    layer: nn.Module
    if name.startswith("conv"):
        shape = golden["weight"].shape
        layer = Conv(shape[1], shape[0], (shape[2], shape[3], shape[4]), KERNELS)
    elif name.startswith("down"):
        layer = Downsampler(4, KERNELS, temporal=name.endswith("time"))
    else:
        layer = Upsampler(4, KERNELS, temporal=name.endswith("time"))
    weights = {key: value for key, value in golden.items() if key.endswith(("weight", "bias"))}
    keys = {f"conv.{key}" if name.startswith("down") else key: value for key, value in weights.items()}
    layer.requires_grad_(False).load_state_dict(keys)
    return layer


def test_each_frame_is_normed_by_itself() -> None:
    golden = {
        key.removeprefix("groupnorm."): value for key, value in tensors("vae/units").items() if key.startswith("groupnorm.")
    }
    for x, y in zip(golden["in"], golden["out"], strict=True):
        normed = group_norm_silu(x.transpose(0, 1), golden["weight"], golden["bias"], 2, 1e-6, silu=False)
        torch.testing.assert_close(normed, y.transpose(0, 1), **CLOSE)


def test_streams_can_take_turns() -> None:
    vae = nano().vae
    clips = torch.rand(2, 6, 3, 24, 32) * 2 - 1
    alone = [torch.cat([vae.encode(part, state) for part in clip.split(2)]) for clip in clips for state in [VaeState()]]
    states = [VaeState(), VaeState()]
    turns = [[vae.encode(clip[i : i + 2], state) for clip, state in zip(clips, states, strict=True)] for i in (0, 2, 4)]
    for index in (0, 1):
        assert torch.cat([turn[index] for turn in turns]).equal(alone[index])


def test_state_does_not_grow_with_the_stream() -> None:
    vae, state = tiny_vae(), VaeState()
    sizes = []
    for _ in range(4):
        vae.decode(torch.rand(1, 2, 3, 4), state)
        sizes.append(sum(tail.untyped_storage().nbytes() for tail in state.tails.values()))
    assert len(set(sizes[1:])) == 1
