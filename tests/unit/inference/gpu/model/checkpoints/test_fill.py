from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors.torch import load_file
from torch import nn

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints import fill, open_checkpoint
from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.kernels import choose_kernels
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.vae import Vae
from tests.unit.inference.gpu.model.checkpoints import files

FREQS = "blocks.0.attn.rope.rope.freqs"
QUANTISED = ("blocks.0.attn.proj_qkv.weight", "blocks.0.attn.proj_out.weight")


def filled(path: Path, dtype: torch.dtype = torch.float32) -> files.TinyModel:
    model = files.TinyModel()
    with open_checkpoint(path) as checkpoint:
        fill(model, checkpoint, device=files.CPU, dtype=dtype)
    return model


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_weight_gets_its_value_and_its_type(dtype: torch.dtype, tmp_path: Path) -> None:
    weights = files.weights()
    model = filled(files.write_safetensors(tmp_path / "m", weights), dtype)
    for key, parameter in model.named_parameters():
        assert torch.equal(parameter, weights[key].to(dtype))
        assert not parameter.requires_grad


def test_weights_can_be_kept_in_types_of_their_own(tmp_path: Path) -> None:
    model, weights = files.TinyModel(), files.weights()
    with open_checkpoint(files.write_safetensors(tmp_path / "m", weights)) as checkpoint:
        fill(model, checkpoint, device=files.CPU, dtype=lambda key: torch.float32 if ".ada." in key else torch.bfloat16)
    assert torch.equal(model.get_parameter("blocks.0.ada.attn_scale"), weights["blocks.0.ada.attn_scale"])
    assert model.get_parameter("vid_in.weight").dtype is torch.bfloat16


def test_weights_can_be_given_other_strides(tmp_path: Path) -> None:
    model, weights = files.TinyModel(), files.weights()
    with open_checkpoint(files.write_safetensors(tmp_path / "m", weights)) as checkpoint:
        fill(model, checkpoint, device=files.CPU, dtype=torch.float32, arrange=lambda weight: weight.t().contiguous().t())
    assert model.vid_in.weight.stride() == (1, 32)
    assert torch.equal(model.vid_in.weight, weights["vid_in.weight"])


def test_a_pth_fills_the_same_model(tmp_path: Path) -> None:
    one = filled(files.write_safetensors(tmp_path / "m", files.weights()))
    other = filled(files.write_pth(tmp_path / "m.pth", files.weights()))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_quantised_gguf_fills_nearly_the_same_model(tmp_path: Path) -> None:
    weights = files.weights()
    plain = {f"model.diffusion_model.{key}": value.half() for key, value in weights.items() if key not in QUANTISED}
    quantised = {key: (GGMLQuantizationType.Q8_0, files.q8_0(weights[key])) for key in QUANTISED}
    model = filled(files.write_gguf(tmp_path / "m", plain, quantised=quantised))
    for key, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.detach(), weights[key], rtol=1e-3, atol=0.02)


def test_the_filled_model_computes(tmp_path: Path) -> None:
    weights = files.weights()
    model = filled(files.write_safetensors(tmp_path / "m", weights))
    x = torch.randn(3, 12)
    assert torch.equal(model.vid_in(x), nn.functional.linear(x, weights["vid_in.weight"], weights["vid_in.bias"]))


def test_buffers_are_not_read_and_become_nan_where_nothing_computed_them(tmp_path: Path) -> None:
    freqs = filled(files.write_safetensors(tmp_path / "m", files.weights()), torch.bfloat16).get_buffer(FREQS)
    assert freqs.shape == (10,)
    assert freqs.dtype is torch.float32
    assert freqs.isnan().all()


def test_a_computed_buffer_keeps_its_values(tmp_path: Path) -> None:
    model, computed = files.TinyModel(), torch.linspace(0, 1, 10)
    model.get_submodule("blocks.0.attn.rope.rope").register_buffer("freqs", computed)
    with open_checkpoint(files.write_safetensors(tmp_path / "m", files.weights())) as checkpoint:
        fill(model, checkpoint, device=files.CPU, dtype=torch.bfloat16)
    assert torch.equal(model.get_buffer(FREQS), computed)


def refusal(path: Path) -> str:
    model = files.TinyModel()
    with open_checkpoint(path) as checkpoint, pytest.raises(ModelBroken) as caught:
        fill(model, checkpoint, device=files.CPU, dtype=torch.float32)
    assert all(tensor.is_meta for tensor in model.state_dict().values()), "a refused file leaves the model as it was"
    return caught.value.message


def test_missing_keys_are_named_the_buffers_too(tmp_path: Path) -> None:
    weights = files.weights()
    del weights[FREQS], weights["vid_in.bias"]
    message = refusal(files.write_safetensors(tmp_path / "m", weights))
    assert f"it lacks 2 tensors (vid_in.bias, {FREQS})" in message


def test_unknown_keys_are_refused_and_the_first_few_named(tmp_path: Path) -> None:
    weights = files.weights() | {f"lora.{index}": torch.ones(2) for index in range(5)}
    message = refusal(files.write_safetensors(tmp_path / "m", weights))
    assert "it has 5 unknown ones (lora.0, lora.1, lora.2 and 2 more)" in message


def test_other_shapes_are_refused_with_both_shapes(tmp_path: Path) -> None:
    weights = files.weights() | {"vid_in.weight": torch.ones(32, 16), FREQS: torch.ones(21)}
    message = refusal(files.write_safetensors(tmp_path / "m", weights))
    assert "2 are of another shape" in message
    assert "vid_in.weight is (32, 16) and should be (32, 12)" in message
    assert f"{FREQS} is (21,) and should be (10,)" in message


NANO = Path(__file__).parents[6] / "models" / "nano"


@pytest.mark.parametrize("part", ["dit", "vae"])
def test_the_embedded_model_is_filled_from_its_own_files(part: str) -> None:
    spec, kernels = SPECS["nano"], choose_kernels(files.CPU, torch.float32)
    with torch.device("meta"):
        model = Dit(spec.dit, kernels) if part == "dit" else Vae(spec.vae, kernels)
    with open_checkpoint(NANO / f"{part}.safetensors") as checkpoint:
        fill(model, checkpoint, device=files.CPU, dtype=torch.float32)
    expected = load_file(NANO / f"{part}.safetensors")
    assert all(torch.equal(parameter, expected[key].float()) for key, parameter in model.named_parameters())
