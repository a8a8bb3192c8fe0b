import hashlib
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.common.errors import ModelBroken
from services.inference.gpu.model.spec import DIT_FILE, MODEL_FILES, SPECS, TEXT_FILE, VAE_FILE
from services.inference.gpu.model.weights import Model, load_model
from tests.unit.inference.gpu.goldens import CPU, NANO


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for name in MODEL_FILES:
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
    digest = hashlib.sha256((NANO / DIT_FILE).read_bytes()).hexdigest()
    assert fingerprint[f"sha256.{DIT_FILE}"] == digest


def test_weights_take_the_compute_type_and_modulation_stays_fp32() -> None:
    model = _load(NANO, torch.bfloat16)
    types = {key: value.dtype for key, value in model.dit.named_parameters()}
    assert {dtype for key, dtype in types.items() if ".ada." in key} == {torch.float32}
    assert {dtype for key, dtype in types.items() if ".ada." not in key} == {torch.bfloat16}
    assert {value.dtype for value in model.vae.parameters()} == {torch.bfloat16}
    assert model.text.dtype == torch.bfloat16
    assert not any(p.requires_grad for p in (*model.dit.parameters(), *model.vae.parameters()))


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_missing_file_is_named(copy: Path, name: str) -> None:
    (copy / name).unlink()
    with pytest.raises(ModelBroken, match=f"{name} is missing"):
        _load(copy)


@pytest.mark.parametrize("name", MODEL_FILES)
def test_a_cut_file_is_named(copy: Path, name: str) -> None:
    (copy / name).write_bytes((copy / name).read_bytes()[:-100])
    with pytest.raises(ModelBroken, match=f"{name} can't be read"):
        _load(copy)


def test_a_missing_tensor_is_named(copy: Path) -> None:
    _change(copy / DIT_FILE, blocks__3__attn__rope__rope__freqs=None)
    with pytest.raises(ModelBroken, match=r"blocks.3.attn.rope.rope.freqs is missing"):
        _load(copy)


def test_an_unknown_tensor_is_named(copy: Path) -> None:
    _change(copy / VAE_FILE, decoder__surprise=torch.zeros(1))
    with pytest.raises(ModelBroken, match=r"decoder.surprise is unknown"):
        _load(copy)


def test_a_tensor_of_another_shape_is_named(copy: Path) -> None:
    _change(copy / TEXT_FILE, pos_emb=torch.zeros(9, 64))
    with pytest.raises(ModelBroken, match=r"pos_emb is \[9, 64\], not \[8, 64\]"):
        _load(copy)


def test_stored_frequencies_are_never_used(copy: Path) -> None:
    _change(copy / DIT_FILE, **{f"blocks__{i}__attn__rope__rope__freqs": torch.full((5,), torch.nan) for i in range(8)})
    x = torch.randn(1, 8, 8, 33)
    velocity = [model.dit(x, model.text, torch.tensor(1000.0)) for model in (_load(copy), _load(NANO))]
    assert velocity[0].equal(velocity[1])
