from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType, GGUFEndian, GGUFWriter

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints import open_checkpoint
from tests.unit.inference.gpu.model.checkpoints import files

Q8_0, Q4_K, Q6_K = GGMLQuantizationType.Q8_0, GGMLQuantizationType.Q4_K, GGMLQuantizationType.Q6_K


def read(path: Path, key: str = "a", dtype: torch.dtype = torch.float32) -> torch.Tensor:
    with open_checkpoint(path) as checkpoint:
        return checkpoint.read(key, device=files.CPU, dtype=dtype)


@pytest.mark.parametrize("stored", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_plain_tensors_are_read_with_their_dimensions_in_order(stored: torch.dtype, tmp_path: Path) -> None:
    tensor = torch.randn(3, 5, 4).to(stored)
    assert torch.equal(read(files.write_gguf(tmp_path / "m", {"a": tensor})), tensor.float())


def test_q8_0_is_scale_times_number(tmp_path: Path) -> None:
    scales, numbers = torch.rand(6, 1).half(), torch.randint(-128, 128, (6, 32), dtype=torch.int8)
    blocks = torch.cat([scales.view(torch.uint8).view(6, 2), numbers.view(torch.uint8)], dim=1).repeat(8, 1)
    expected = (scales.float() * numbers.float()).repeat(8, 1).view(6, 256)
    assert torch.equal(read(files.write_gguf(tmp_path / "m", {}, quantised={"a": (Q8_0, blocks.numpy().tobytes())})), expected)


@pytest.mark.parametrize(("kind", "make"), [(Q4_K, files.q4_k_block), (Q6_K, files.q6_k_block)], ids=["Q4_K", "Q6_K"])
def test_super_blocks_follow_their_formula(kind: GGMLQuantizationType, make: files.MakeBlock, tmp_path: Path) -> None:
    made = [make(seed) for seed in range(4)]
    path = files.write_gguf(tmp_path / "m", {}, quantised={"a": (kind, b"".join(block for block, _ in made))})
    torch.testing.assert_close(read(path), torch.tensor([numbers for _, numbers in made]), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("kind", "block_bytes"), [(Q8_0, 34 * 8), (Q4_K, 144), (Q6_K, 210)], ids=["Q8_0", "Q4_K", "Q6_K"])
def test_pieces_don_t_change_quantised_tensors(kind: GGMLQuantizationType, block_bytes: int, tmp_path: Path) -> None:
    """2¹² rows of 256 are a piece; this takes three, the last one short."""
    few_rows = torch.randint(0, 60, (10, block_bytes), dtype=torch.uint8)
    many_rows = few_rows.repeat(900, 1)
    path = files.write_gguf(
        tmp_path / "m",
        {},
        quantised={"few": (kind, few_rows.numpy().tobytes()), "many": (kind, many_rows.numpy().tobytes())},
    )
    assert torch.equal(read(path, "many"), read(path, "few").repeat(900, 1))


def test_a_quantised_file_also_holds_plain_tensors(tmp_path: Path) -> None:
    bias, weight = torch.randn(4).half(), torch.randn(4, 256)
    path = files.write_gguf(tmp_path / "m", {"bias": bias}, quantised={"weight": (Q8_0, files.q8_0(weight))})
    assert torch.equal(read(path, "bias"), bias.float())
    torch.testing.assert_close(read(path, "weight"), weight, rtol=0, atol=weight.abs().max().item() / 200)


def test_the_prefix_that_some_files_have_is_taken_off(tmp_path: Path) -> None:
    path = files.write_gguf(tmp_path / "m", {"model.diffusion_model.txt_in.bias": torch.ones(4)})
    with open_checkpoint(path) as checkpoint:
        assert checkpoint.keys == ("txt_in.bias",)


def test_a_shape_in_the_metadata_goes_before_the_stored_one(tmp_path: Path) -> None:
    name, tensor = "model.diffusion_model.conv.weight", torch.randn(6, 4)
    path = files.write_gguf(tmp_path / "m", {name: tensor}, shapes={name: (2, 3, 4)})
    assert torch.equal(read(path, "conv.weight"), tensor.view(2, 3, 4))


@pytest.mark.parametrize("shape", [(5, 5), (-6, -4)])
def test_a_shape_that_doesn_t_fit_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    path = files.write_gguf(tmp_path / "m", {"a": torch.randn(6, 4)}, shapes={"a": shape})
    with pytest.raises(ModelBroken, match="gives a a shape that doesn't fit"):
        open_checkpoint(path)


def test_other_quantisations_are_refused_by_name(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m", "seedvr2")
    writer.add_tensor("a", torch.zeros(2, 18, dtype=torch.uint8).numpy(), raw_dtype=GGMLQuantizationType.Q4_0)
    finish(writer)
    with pytest.raises(ModelBroken, match="stores a as Q4_0, which is not supported; use a Q8_0 or Q4_K_M file"):
        open_checkpoint(tmp_path / "m")


def test_a_big_endian_file_is_refused(tmp_path: Path) -> None:
    writer = GGUFWriter(tmp_path / "m", "seedvr2", endianess=GGUFEndian.BIG)
    writer.add_tensor("a", torch.zeros(4).numpy())
    finish(writer)
    with pytest.raises(ModelBroken, match="big-endian"):
        open_checkpoint(tmp_path / "m")


@pytest.mark.parametrize("at", range(4, 60, 7))
def test_damage_in_the_header_is_refused_or_harmless(at: int, tmp_path: Path) -> None:
    path = files.write_gguf(tmp_path / "m", {"a": torch.ones(4)})
    damaged = bytearray(path.read_bytes())
    damaged[at] ^= 0xFF
    path.write_bytes(damaged)
    try:
        values = read(path)
    except ModelBroken as error:
        assert "cut off or damaged" in error.message  # noqa: PT017
    else:
        assert torch.equal(values, torch.ones(4))


def finish(writer: GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
