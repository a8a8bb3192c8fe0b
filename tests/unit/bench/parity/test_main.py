import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from bench.parity.__main__ import main
from tests.unit.inference.gpu.goldens import GOLDENS


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the goldens of the pipeline."""
    return Path(shutil.copytree(GOLDENS / "pipeline", tmp_path / "some folder"))


def _change(path: Path, key: str, by: float) -> None:
    found = load_file(path)
    found[key] = found[key] + by
    save_file(found, path)


@pytest.mark.parametrize("name", ["dit", "nano", "pipeline"])
def test_everything_in_this_repository_is_within_tolerance(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(GOLDENS / name)]) == 0
    shown = capsys.readouterr().out
    assert "| case | tensors | max abs | relative L2 | verdict |" in shown
    assert "| pass |" in shown
    assert shown.endswith("All within tolerance.\n")
    assert "no rule for it" not in shown


def test_the_autoencoder_is_within_tolerance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    # What needs a gigabyte has its test beside the autoencoder's own.
    for file in (GOLDENS / "vae").iterdir():
        if file.stem != "full_config":
            (tmp_path / file.name).symlink_to(file)
    assert main([str(tmp_path)]) == 0
    assert "no rule for it" not in capsys.readouterr().out


def test_a_folder_is_known_by_its_files_and_a_difference_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _change(folder / "blend.safetensors", "v3.out", 2e-5)
    assert main([str(folder), str(GOLDENS / "nano")]) == 1
    shown = capsys.readouterr().out
    assert "| cross-fade over 3 | 2 | 2.0e-05 |" in shown
    assert f"FAILED: {folder}: cross-fade over 3\n" in shown
    assert shown.count("FAILED") == shown.count("FAIL |") == 1


def test_what_is_not_a_number_fails(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _change(folder / "blend.safetensors", "v3.out", float("nan"))
    assert main([str(folder)]) == 1
    assert "| cross-fade over 3 | 2 | inf |" in capsys.readouterr().out


def test_an_unknown_folder_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "401.json").write_text("{}")
    assert main([str(GOLDENS / "nano"), str(tmp_path)]) == 1
    assert (
        f"FAILED: {tmp_path} is no folder of goldens that this program knows (dit, vae, nano, pipeline)"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize("content", [None, b"", b"{}"], ids=["missing", "empty", "other"])
def test_a_broken_file_is_said_and_fails(folder: Path, content: bytes | None, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "blend.safetensors").unlink()
    if content is not None:
        (folder / "blend.safetensors").write_bytes(content)
    assert main([str(folder)]) == 1
    shown = capsys.readouterr().out
    assert "because a file is missing or broken" in shown
    assert "| sizes by the area rule |" in shown


def test_what_was_not_compared_is_listed_with_its_reason(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file({"x": torch.zeros(1)}, folder / "later.safetensors")
    assert main([str(folder)]) == 0
    shown = capsys.readouterr().out
    assert "Not compared in later.safetensors: all of it (no rule for it)" in shown
    assert "Not compared in quantise.safetensors: port_u8 (the port cuts where" in shown


def test_a_device_is_compared_in_fp32_and_bf16(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", str(GOLDENS / "dit"), str(GOLDENS / "vae")]) == 0
    shown = capsys.readouterr().out
    assert shown.count("| plain float32: ") == shown.count("| plain bfloat16: ") == 8
