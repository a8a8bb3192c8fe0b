"""How much memory reading takes. What is read is tested beside each kind of file."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFWriter
from torch import nn

from services.inference.gpu.model.checkpoints import fill, open_checkpoint
from tests.unit.inference.gpu.model.checkpoints import files

MIB = 2**20
TENSORS, ROWS, WIDTH = 16, 2048, 4096
FILE_BYTES = TENSORS * 2 * ROWS * WIDTH
TENSOR_BYTES = 2 * ROWS * WIDTH
SLACK_BYTES = 64 * MIB
"""For a piece in all its forms, and what the allocator keeps."""


def write_large_safetensors(path: Path) -> None:
    """fp16 zeros, 256 MiB of them, that take no space on disk."""
    entries = {
        f"{index}": {"dtype": "F16", "shape": [ROWS, WIDTH], "data_offsets": [index * TENSOR_BYTES, (index + 1) * TENSOR_BYTES]}
        for index in range(TENSORS)
    }
    files.write_header(path, entries)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + TENSORS * TENSOR_BYTES)


def write_large_gguf(path: Path) -> None:
    """Q8_0, likewise."""
    writer = GGUFWriter(path, "seedvr2")
    row_bytes = WIDTH // 32 * 34
    for index in range(TENSORS):
        writer.add_tensor_info(
            f"{index}", (ROWS, row_bytes), np.dtype(np.uint8), ROWS * row_bytes, raw_dtype=GGMLQuantizationType.Q8_0
        )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size + TENSORS * ROWS * row_bytes + 32)


@pytest.fixture(scope="module")
def peaks(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """Bytes that each action of the child process took at most."""
    folder = tmp_path_factory.mktemp("large")
    write_large_safetensors(folder / "safetensors")
    write_large_gguf(folder / "gguf")
    files.write_pth(folder / "pth", {f"{index}": torch.zeros(ROWS, WIDTH).half() for index in range(TENSORS)})
    files.write_safetensors(folder / "small-safetensors", files.weights())
    files.write_pth(folder / "small-pth", files.weights())
    child = "tests.unit.inference.gpu.model.checkpoints.memory_child"
    ended = subprocess.run([sys.executable, "-m", child, str(folder)], check=True, capture_output=True, text=True, timeout=150)
    (folder / "pth").unlink()
    found: dict[str, int] = json.loads(ended.stdout)
    return found


linux = pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")


@linux
@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_reading_for_a_gpu_takes_the_host_memory_of_a_piece_and_not_of_the_file(kind: str, peaks: dict[str, int]) -> None:
    assert peaks[f"read {kind}"] < SLACK_BYTES


@linux
def test_a_pth_takes_no_private_memory_beyond_a_piece(peaks: dict[str, int]) -> None:
    assert peaks["private, pth"] < SLACK_BYTES


@linux
def test_a_pth_never_takes_more_than_the_file_and_a_piece(peaks: dict[str, int]) -> None:
    assert peaks["read pth"] < FILE_BYTES + SLACK_BYTES


@linux
def test_filling_a_model_takes_the_memory_of_the_model_once(peaks: dict[str, int]) -> None:
    assert peaks["fill_model safetensors"] < FILE_BYTES + SLACK_BYTES


@linux
def test_conversion_takes_the_memory_of_a_piece(peaks: dict[str, int]) -> None:
    assert peaks["convert safetensors"] < SLACK_BYTES


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_filling_a_model_on_a_gpu_makes_no_second_copy_there(tmp_path: Path) -> None:
    write_large_safetensors(tmp_path / "m")
    model, device = nn.Module(), torch.device("cuda")
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    with open_checkpoint(tmp_path / "m") as checkpoint:
        for key, shape in checkpoint.shapes.items():
            model.register_parameter(key, nn.Parameter(torch.empty(shape, device="meta")))
        fill(model, checkpoint, device=device, dtype=torch.bfloat16)
    assert torch.cuda.max_memory_allocated(device) - before < FILE_BYTES + 16 * MIB
