"""Conversion in a process of its own, with real checkpoints. Of what is written: tests beside the checkpoints."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from services.common.errors import ModelBroken, StoreFull, StoreUnavailable
from services.inference.delivery.conversion import convert_apart


def ignore(done: int, total: int) -> None:
    """Nobody looks."""


def test_a_checkpoint_is_converted_and_told_how_far_that_is(tmp_path: Path):
    torch.save({"a": torch.randn(2**20, 2), "b": torch.ones(3)}, tmp_path / "dit-0123.part")
    told: list[tuple[int, int]] = []
    convert_apart(tmp_path / "dit-0123.part", tmp_path / "dit.safetensors", lambda done, total: told.append((done, total)))
    assert {key: tensor.dtype for key, tensor in load_file(tmp_path / "dit.safetensors").items()} == {
        "a": torch.bfloat16,
        "b": torch.float32,
    }
    assert len(told) == 3
    assert told[-1] == (2**22 + 12, 2**22 + 12)


def test_a_bare_tensor_becomes_the_text_embedding(tmp_path: Path):
    torch.save(torch.ones(3, 4).bfloat16(), tmp_path / "pos_emb-0123.part")
    convert_apart(tmp_path / "pos_emb-0123.part", tmp_path / "pos_emb.safetensors", ignore)
    assert load_file(tmp_path / "pos_emb.safetensors")["pos_emb"].shape == (3, 4)


def test_what_cant_be_used_is_refused_in_the_words_of_the_other_process(tmp_path: Path):
    save_file({"a": torch.tensor([torch.nan])}, tmp_path / "source")
    with pytest.raises(ModelBroken, match="holds NaN or infinite numbers in a"):
        convert_apart(tmp_path / "source", tmp_path / "dit.safetensors", ignore)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_place_that_cant_be_written_is_told_in_words(tmp_path: Path):
    save_file({"a": torch.ones(1)}, tmp_path / "source")
    with pytest.raises(StoreUnavailable, match=r"The model volume .* failed"):
        convert_apart(tmp_path / "source", tmp_path / "nowhere" / "dit.safetensors", ignore)


@pytest.fixture
def file_size_limit() -> Iterator[int]:
    """Files of this process and of its children don't grow beyond it, as on a full disk."""
    limit, (soft, hard) = 1 << 20, resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    yield limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_is_told_in_words_and_nothing_is_left(tmp_path: Path, file_size_limit: int):
    save_file({"a": torch.ones(file_size_limit // 2 + 512, 1).to(torch.float8_e4m3fn)}, tmp_path / "source")
    with pytest.raises(StoreFull, match=r"No space is left in .*; what was received is kept"):
        convert_apart(tmp_path / "source", tmp_path / "dit.safetensors", ignore)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
