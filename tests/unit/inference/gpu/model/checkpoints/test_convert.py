import json
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType
from safetensors import safe_open
from safetensors.torch import load_file

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints import convert_to_bf16, open_checkpoint
from tests.unit.inference.gpu.model.checkpoints import files


def converted(tensor: torch.Tensor) -> torch.Tensor:
    """Matrices are rounded, vectors are not."""
    return tensor.bfloat16() if tensor.ndim > 1 else tensor


def test_the_result_is_a_safetensors_file_with_matrices_in_bf16_and_vectors_in_fp32(tmp_path: Path) -> None:
    weights = files.weights() | {"large": torch.randn(3, 2**20 + 1), "none": torch.empty(0, 3), "single": torch.tensor(2.0)}
    convert_to_bf16(files.write_pth(tmp_path / "m.pth", weights), tmp_path / "m.safetensors")
    found = load_file(tmp_path / "m.safetensors")
    assert set(found) == set(weights)
    for key, tensor in found.items():
        torch.testing.assert_close(tensor, converted(weights[key]), rtol=0, atol=0)
    with safe_open(tmp_path / "m.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt", "converted_from": "pth-f32"}


def test_a_gguf_file_is_converted_to_what_it_stands_for(tmp_path: Path) -> None:
    block, numbers = files.q4_k_block(1)
    source = files.write_gguf(tmp_path / "m.gguf", {"b": torch.ones(3)}, quantised={"a": (GGMLQuantizationType.Q4_K, block)})
    convert_to_bf16(source, tmp_path / "m.safetensors")
    with open_checkpoint(tmp_path / "m.safetensors") as checkpoint:
        assert checkpoint.format == "safetensors-bf16 from gguf-q4_k"
        read = checkpoint.read("a", device=files.CPU, dtype=torch.float32)
    torch.testing.assert_close(read, torch.tensor([numbers]), rtol=1 / 256, atol=0)


def test_every_tensor_of_the_result_is_aligned(tmp_path: Path) -> None:
    tensors = {"a": torch.ones(3, 1), "b": torch.ones(3), "c": torch.ones(1, 1), "d": torch.ones(1).half()}
    convert_to_bf16(files.write_safetensors(tmp_path / "m", tensors), tmp_path / "bf16")
    raw = (tmp_path / "bf16").read_bytes()
    length = int.from_bytes(raw[:8], "little")
    assert length % 8 == 0
    for key, entry in json.loads(raw[8 : 8 + length]).items():
        if key in tensors:
            assert entry["data_offsets"][0] % {"F32": 4, "BF16": 2}[entry["dtype"]] == 0


def test_the_same_source_gives_the_same_bytes(tmp_path: Path) -> None:
    source = files.write_safetensors(tmp_path / "m", files.weights())
    convert_to_bf16(source, tmp_path / "one")
    convert_to_bf16(source, tmp_path / "two")
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_a_file_can_be_converted_in_place(tmp_path: Path) -> None:
    path = files.write_safetensors(tmp_path / "m", files.weights())
    convert_to_bf16(path, path)
    assert all(torch.equal(value, converted(files.weights()[key])) for key, value in load_file(path).items())


def test_a_failed_conversion_leaves_what_was_there_and_nothing_else(tmp_path: Path) -> None:
    source = files.write_safetensors(tmp_path / "source", {"a.weight_scale": torch.ones(4)})
    (tmp_path / "destination").write_bytes(b"as before")
    with pytest.raises(ModelBroken, match="keeps scales"):
        convert_to_bf16(source, tmp_path / "destination")
    assert (tmp_path / "destination").read_bytes() == b"as before"
    assert {path.name for path in tmp_path.iterdir()} == {"source", "destination"}


@pytest.mark.parametrize("number", [torch.nan, torch.inf, -torch.inf], ids=str)
def test_a_number_that_is_none_is_refused_and_nothing_is_written(number: float, tmp_path: Path) -> None:
    source = files.write_safetensors(tmp_path / "m", {"a": torch.ones(3), "b": torch.tensor([[1.0, number]])})
    with pytest.raises(ModelBroken, match="holds NaN or infinite numbers in b"):
        convert_to_bf16(source, tmp_path / "bf16")
    assert not (tmp_path / "bf16").exists()


def test_a_conversion_tells_how_far_it_is(tmp_path: Path) -> None:
    source = files.write_safetensors(tmp_path / "m", {"a": torch.ones(2**20 + 8, 1), "b": torch.ones(4)})
    told: list[tuple[int, int]] = []
    convert_to_bf16(source, tmp_path / "bf16", lambda done, total: told.append((done, total)))
    total = 2 * (2**20 + 8) + 4 * 4
    assert told == [(16, total), (16 + 2**21, total), (total, total)]


def test_a_destination_that_can_t_be_written_is_an_error_of_the_file_system(tmp_path: Path) -> None:
    source = files.write_safetensors(tmp_path / "m", files.weights())
    (tmp_path / "taken").mkdir()
    with pytest.raises(IsADirectoryError):
        convert_to_bf16(source, tmp_path / "taken")
    with pytest.raises(FileNotFoundError):
        convert_to_bf16(source, tmp_path / "nowhere" / "m")
    assert {path.name for path in tmp_path.iterdir()} == {"m", "taken"}
