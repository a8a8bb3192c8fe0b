import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from gguf import GGMLQuantizationType

from services.common.errors import ModelBroken
from services.inference.gpu.model.checkpoints import open_checkpoint
from tests.unit.inference.gpu.model.checkpoints import files

Writer = Callable[[Path], Path]

KINDS: dict[str, Writer] = {
    "safetensors-f32": lambda path: files.write_safetensors(path, files.weights()),
    "safetensors-f16": lambda path: files.write_safetensors(path, files.cast(files.weights(), torch.float16)),
    "safetensors-bf16": lambda path: files.write_safetensors(path, files.cast(files.weights(), torch.bfloat16)),
    "safetensors-f8e4m3": lambda path: files.write_safetensors(path, files.cast(files.weights(), torch.float8_e4m3fn)),
    "pth-f32": lambda path: files.write_pth(path, files.weights()),
    "pth-bf16": lambda path: files.write_pth(path, files.cast(files.weights(), torch.bfloat16)),
    "gguf-f16": lambda path: files.write_gguf(path, files.cast(files.weights(), torch.float16)),
    "gguf-q8_0": lambda path: files.write_gguf(
        path, {}, quantised={"a": (GGMLQuantizationType.Q8_0, files.q8_0(torch.randn(2, 256)))}
    ),
    "gguf-q4_k": lambda path: files.write_gguf(
        path, {}, quantised={"a": (GGMLQuantizationType.Q4_K, files.q4_k_block(0)[0] * 4)}
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_kind_is_told_by_content_and_not_by_name(kind: str, tmp_path: Path) -> None:
    misnamed = tmp_path / ("model.safetensors" if kind.startswith(("pth", "gguf")) else "model.pth")
    with open_checkpoint(KINDS[kind](misnamed)) as checkpoint:
        assert checkpoint.format == kind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("part", [0.02, 0.3, 0.7, 0.999])
def test_a_file_that_is_cut_off_anywhere_is_refused(kind: str, part: float, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path / "model")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * part)])
    with pytest.raises(ModelBroken, match=r"download it again"):
        open_checkpoint(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is empty"),
        (b"\0" * 1000, "is no checkpoint that is known here"),
        (b"some text that somebody saved", "is no checkpoint that is known here"),
        (b"<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n", "is a Git LFS pointer"),
        (pickle.dumps({"a": 1}), "is a bare pickle"),
    ],
    ids=["empty", "zeros", "text", "web page", "LFS pointer", "bare pickle"],
)
def test_other_files_are_refused_by_what_they_are(content: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(ModelBroken, match=rf"model\.safetensors {words}"):
        open_checkpoint(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelBroken, match=r"nowhere can't be read: No such file"):
        open_checkpoint(tmp_path / "nowhere")
    with pytest.raises(ModelBroken, match=r"can't be read: Is a directory"):
        open_checkpoint(tmp_path)
