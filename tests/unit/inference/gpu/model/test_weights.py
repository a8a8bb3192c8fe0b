import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints import convert_to_bf16
from services.inference.gpu.model.spec import SPECS
from services.inference.gpu.model.vae import VaeState
from services.inference.gpu.model.weights import Model, load_model
from tests.unit.inference.gpu.goldens import CPU, NANO
from tests.unit.inference.gpu.model import forms
from tests.unit.inference.gpu.model.checkpoints import files

NANO_FILES = ("dit.safetensors", "vae.safetensors", "pos_emb.safetensors")


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in NANO_FILES:
        shutil.copy(NANO / name, tmp_path / name)
    return tmp_path


def _load(directory: Path, dtype: torch.dtype = torch.float32) -> Model:
    return load_model(SPECS["nano"], directory, CPU, dtype)


def _change(path: Path, **changes: torch.Tensor | None) -> None:
    tensors = load_file(path) | {key.replace("__", "."): value for key, value in changes.items()}
    save_file({key: value for key, value in tensors.items() if value is not None}, path)


def test_the_fingerprint_names_model_type_kernels_and_files() -> None:
    fingerprint = _load(NANO).fingerprint
    assert fingerprint["model"] == "nano"
    assert fingerprint["dtype"] == "float32"
    assert fingerprint["kernel.attention"]
    digest = hashlib.sha256((NANO / "dit.safetensors").read_bytes()).hexdigest()
    assert fingerprint["sha256.dit.safetensors"] == digest
    assert {name for name in fingerprint if name.startswith("sha256.")} == {f"sha256.{name}" for name in NANO_FILES}


def test_weights_take_the_compute_type_and_modulation_stays_fp32() -> None:
    model = _load(NANO, torch.bfloat16)
    types = {key: value.dtype for key, value in model.dit.named_parameters()}
    assert {dtype for key, dtype in types.items() if ".ada." in key} == {torch.float32}
    assert {dtype for key, dtype in types.items() if ".ada." not in key} == {torch.bfloat16}
    assert {value.dtype for value in model.vae.parameters()} == {torch.bfloat16}
    assert model.text.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in (*model.dit.parameters(), *model.vae.parameters()))
    assert not model.dit.training
    assert not model.vae.training


def test_convolutions_have_their_channels_innermost() -> None:
    convolutions = [p for p in _load(NANO).vae.parameters() if p.ndim == 5]
    assert convolutions
    assert all(p.is_contiguous(memory_format=torch.channels_last_3d) for p in convolutions)


# Every form that models are published in.

ROUNDING = {"safetensors-f16": 1e-3, "safetensors-bf16": 1e-2, "safetensors-f8e4m3": 0.1, "mixed fp8": 0.1, "gguf-q8_0": 0.02}
"""How far a result may be from that of the fp32 weights, relative L2."""


def _results(model: Model) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(3, 8, 8, 2 * 4 + 1, generator=generator)
    frames = torch.rand(2, 3, 16, 16, generator=generator) * 2 - 1
    return {
        "velocity": model.dit(latents, model.text, torch.tensor(1000.0)),
        "latents": model.vae.encode(frames, VaeState()),
    }


@pytest.mark.parametrize("form", forms.WRITERS)
def test_a_model_of_any_form_gives_what_its_numbers_give_in_fp32(form: str, tmp_path: Path) -> None:
    directory = forms.write_model(tmp_path / "published", form)
    model = load_model(forms.SPEC, directory, CPU, torch.float32)
    assert model.weight_format == ("safetensors-f8e4m3" if form == "mixed fp8" else form)
    expected = _results(load_model(forms.SPEC, forms.decoded(tmp_path / "decoded", directory), CPU, torch.float32))
    for name, result in _results(model).items():
        assert result.isfinite().all()
        assert torch.equal(result, expected[name]), name


@pytest.mark.parametrize("form", ROUNDING)
def test_a_form_changes_results_no_more_than_it_rounds(form: str, tmp_path: Path) -> None:
    exact, rounded = (
        _results(load_model(forms.SPEC, forms.write_model(tmp_path / each, each), CPU, torch.float32))["velocity"]
        for each in ("safetensors-f32", form)
    )
    assert 0 < (rounded - exact).norm() / exact.norm() < ROUNDING[form]


@pytest.mark.parametrize("form", ["safetensors-f16", "pth-f32", "gguf-q4_k"])
def test_a_converted_model_gives_the_bf16_results_of_the_published_one(form: str, tmp_path: Path) -> None:
    published = forms.write_model(tmp_path / "published", form)
    converted = tmp_path / "converted"
    converted.mkdir()
    for path in published.iterdir():
        convert_to_bf16(path, converted / f"{path.stem}.safetensors")
    before, after = (load_model(forms.SPEC, each, CPU, torch.bfloat16) for each in (published, converted))
    assert after.weight_format == f"safetensors-bf16 from {form}"
    results = _results_in_bf16(after)
    assert all(torch.equal(result, results[name]) for name, result in _results_in_bf16(before).items())


def _results_in_bf16(model: Model) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    latents = torch.randn(3, 8, 8, 2 * 4 + 1, generator=generator).bfloat16()
    return {"velocity": model.dit(latents, model.text, torch.tensor(1000.0)), "text": model.text}


# What is refused.


@pytest.mark.parametrize("name", NANO_FILES)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelBroken, match=rf"has no {Path(name).stem}\.\*"):
        _load(copy)


@pytest.mark.parametrize("name", NANO_FILES)
def test_a_cut_file_is_named(copy: Path, name: str) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:-100])
    with pytest.raises(ModelBroken, match=f"{name} is cut off"):
        _load(copy)


def test_a_missing_tensor_is_named(copy: Path) -> None:
    _change(copy / "dit.safetensors", blocks__3__attn__rope__rope__freqs=None)
    with pytest.raises(ModelBroken, match=r"it lacks 1 tensors \(blocks.3.attn.rope.rope.freqs\)"):
        _load(copy)


def test_an_unknown_tensor_is_named(copy: Path) -> None:
    _change(copy / "vae.safetensors", decoder__surprise=torch.zeros(1))
    with pytest.raises(ModelBroken, match=r"it has 1 unknown ones \(decoder.surprise\)"):
        _load(copy)


def test_a_refusal_doesnt_wait_for_a_large_file_to_be_hashed(copy: Path) -> None:
    _change(copy / "dit.safetensors", surprise=torch.zeros(1))
    # Sparse: it takes no space, but half a minute to read.
    os.truncate(copy / "vae.safetensors", 1 << 36)
    started = time.monotonic()
    with pytest.raises(ModelBroken, match="surprise"):
        _load(copy)
    assert time.monotonic() - started < 15


def test_scales_are_refused(copy: Path) -> None:
    _change(copy / "dit.safetensors", vid_in__proj__weight_scale=torch.ones(1))
    with pytest.raises(ModelBroken, match=r"keeps scales beside its weights \(vid_in.proj.weight_scale\)"):
        _load(copy)


def test_a_tensor_of_another_shape_is_named(copy: Path) -> None:
    _change(copy / "pos_emb.safetensors", pos_emb=torch.zeros(9, 64))
    with pytest.raises(ModelBroken, match=r"pos_emb is \(9, 64\) and should be \(8, 64\)"):
        _load(copy)


def test_a_weight_that_is_not_a_number_is_named(copy: Path) -> None:
    weight = load_file(copy / "dit.safetensors")["blocks.3.mlp.all.proj_in.weight"].clone()
    weight[5, 7] = torch.nan
    _change(copy / "dit.safetensors", blocks__3__mlp__all__proj_in__weight=weight)
    with pytest.raises(ModelBroken, match=r"holds NaN or infinite numbers in blocks.3.mlp.all.proj_in.weight"):
        _load(copy)


class RunsCode:
    def __reduce__(self) -> tuple[Callable[[str], None], tuple[str]]:
        return os.mkdir, ("it ran",)


def test_a_pickle_with_code_is_refused(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(copy)
    (copy / "pos_emb.safetensors").unlink()
    files.write_pth(copy / "pos_emb.pt", RunsCode())
    with pytest.raises(ModelBroken, match=r"pos_emb.pt is a pickle that holds code \(posix.mkdir\)"):
        _load(copy)
    assert not (copy / "it ran").exists()


def test_stored_frequencies_are_never_used(copy: Path) -> None:
    _change(copy / "dit.safetensors", **{f"blocks__{i}__attn__rope__rope__freqs": torch.full((5,), torch.nan) for i in range(8)})
    x = torch.randn(1, 8, 8, 33)
    velocity = [model.dit(x, model.text, torch.tensor(1000.0)) for model in (_load(copy), _load(NANO))]
    assert velocity[0].equal(velocity[1])
