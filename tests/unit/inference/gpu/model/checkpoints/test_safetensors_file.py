from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints import open_checkpoint
from tests.unit.inference.gpu.model.checkpoints import files

TYPES = [torch.float32, torch.float16, torch.bfloat16, torch.float8_e4m3fn]


@pytest.mark.parametrize("stored", TYPES, ids=str)
@pytest.mark.parametrize("wanted", [torch.float32, torch.bfloat16], ids=str)
def test_every_type_is_widened_and_rounded_once(stored: torch.dtype, wanted: torch.dtype, tmp_path: Path) -> None:
    tensors = files.cast(files.weights(), stored)
    with open_checkpoint(files.write_safetensors(tmp_path / "m", tensors)) as checkpoint:
        assert set(checkpoint.keys) == set(tensors)
        for key, tensor in tensors.items():
            assert checkpoint.shapes[key] == tensor.shape
            torch.testing.assert_close(
                checkpoint.read(key, device=files.CPU, dtype=wanted), tensor.float().to(wanted), rtol=0, atol=0
            )


def test_every_fp8_number_is_read_as_it_is(tmp_path: Path) -> None:
    numbers = torch.tensor([code for code in range(256) if code & 0x7F != 0x7F], dtype=torch.uint8).view(torch.float8_e4m3fn)
    with open_checkpoint(files.write_safetensors(tmp_path / "m", {"a": numbers})) as checkpoint:
        read = checkpoint.read("a", device=files.CPU, dtype=torch.bfloat16)
    assert torch.equal(read.float(), numbers.float())
    assert read[0x7E] == 448


@pytest.mark.parametrize("stored", TYPES, ids=str)
def test_a_nan_is_refused_by_the_name_of_its_tensor(stored: torch.dtype, tmp_path: Path) -> None:
    tensors = {"a": torch.ones(4), "b": torch.tensor([1.0, torch.nan]).to(stored)}
    with open_checkpoint(files.write_safetensors(tmp_path / "m", tensors)) as checkpoint:
        checkpoint.read("a", device=files.CPU, dtype=torch.bfloat16)
        with pytest.raises(ModelBroken, match="holds NaN or infinite numbers in b"):
            checkpoint.read("b", device=files.CPU, dtype=torch.bfloat16)


def test_a_number_that_the_compute_type_can_t_hold_is_refused(tmp_path: Path) -> None:
    with open_checkpoint(files.write_safetensors(tmp_path / "m", {"a": torch.tensor([70_000.0])})) as checkpoint:
        with pytest.raises(ModelBroken, match="or some that f16 can't hold"):
            checkpoint.read("a", device=files.CPU, dtype=torch.float16)
        assert checkpoint.read("a", device=files.CPU, dtype=torch.float32) == 70_000


def test_large_numbers_whose_sum_overflows_are_no_damage(tmp_path: Path) -> None:
    with open_checkpoint(files.write_safetensors(tmp_path / "m", {"a": torch.full((9,), 60_000.0)})) as checkpoint:
        assert checkpoint.read("a", device=files.CPU, dtype=torch.float16).equal(torch.full((9,), 60_000.0).half())


def test_a_file_of_mixed_types_is_called_by_the_most_common(tmp_path: Path) -> None:
    tensors = files.cast(files.weights(), torch.float8_e4m3fn)
    tensors |= {key: tensor.half() for key, tensor in files.weights().items() if tensor.dim() == 1}
    with open_checkpoint(files.write_safetensors(tmp_path / "m", tensors)) as checkpoint:
        assert checkpoint.format == "safetensors-f8e4m3"
        for key, tensor in tensors.items():
            assert torch.equal(checkpoint.read(key, device=files.CPU, dtype=torch.float32), tensor.float())


def test_tensors_of_many_pieces_and_of_none_are_read_whole(tmp_path: Path) -> None:
    large = torch.arange(3 * 2**20 + 5, dtype=torch.float32)
    tensors = {"large": large, "single": torch.tensor(3.0), "none": torch.empty(0, 4)}
    with open_checkpoint(files.write_safetensors(tmp_path / "m", tensors)) as checkpoint:
        for key, tensor in tensors.items():
            assert torch.equal(checkpoint.read(key, device=files.CPU, dtype=torch.float32), tensor)


def test_keys_come_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = files.write_safetensors(tmp_path / "m", {"b": torch.zeros(2), "a": torch.zeros(2).half(), "c": torch.zeros(2)})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.keys == ("b", "c", "a")


ENTRY: dict[str, Any] = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (b'{"a": ', "its header is not valid JSON"),
        (b"{" + b'"a":[' * 100_000, "its header is not valid JSON"),
        ({"a": 7}, "its header says nonsense about a"),
        ({"a": ENTRY | {"shape": [-2]}}, "its header says nonsense about a"),
        ({"a": ENTRY | {"shape": [2**64] * 300}}, "its header says nonsense about a"),
        ({"a": ENTRY | {"data_offsets": [0]}}, "its header says nonsense about a"),
        ({"a": ENTRY | {"shape": [3]}}, "a has 8 bytes, which is not what its shape takes"),
        ({"a": ENTRY | {"data_offsets": [8, 0]}}, "a has -8 bytes"),
        ({"a": ENTRY | {"dtype": "I64", "shape": [1]}}, "stores a as I64; supported are F32, F16, BF16, F8_E4M3"),
        ({"a": ENTRY | {"data_offsets": [4, 12]}}, "is cut off"),
        ({"__metadata__": {"format": "pt"}}, "holds no tensors"),
        ({"a": ENTRY, "a.weight_scale": ENTRY}, "keeps scales beside its weights"),
    ],
)
def test_a_wrong_header_is_refused(header: object, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match=words):
        open_checkpoint(files.write_header(tmp_path / "m", header, data=bytes(8)))


def test_a_header_of_absurd_length_is_not_even_read(tmp_path: Path) -> None:
    path = tmp_path / "m"
    path.write_bytes((2**63).to_bytes(8, "little") + b"{}")
    with pytest.raises(ModelBroken, match="its header would be 9223372036854775808 bytes long"):
        open_checkpoint(path)


def test_a_file_that_shrinks_while_it_is_open_is_an_error_and_no_crash(tmp_path: Path) -> None:
    path = files.write_safetensors(tmp_path / "m", {"a": torch.ones(1000)})
    with open_checkpoint(path) as checkpoint:
        with path.open("r+b") as file:
            file.truncate(1000)
        with pytest.raises(ModelBroken, match="became shorter while a was read"):
            checkpoint.read("a", device=files.CPU, dtype=torch.float32)


def test_what_was_read_outlives_the_file(tmp_path: Path) -> None:
    path = files.write_safetensors(tmp_path / "m", files.weights())
    with open_checkpoint(path) as checkpoint:
        read = {key: checkpoint.read(key, device=files.CPU, dtype=torch.float32) for key in checkpoint.keys}
    expected = load_file(path)
    path.unlink()
    assert all(torch.equal(read[key], expected[key]) for key in expected)
