"""Run as a process: does one thing after the other with checkpoint files, prints how much memory each took at most."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from services.inference.gpu.model.checkpoints import convert_to_bf16, fill, open_checkpoint


def status_bytes(field: str) -> int:
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def peak_bytes(action: Callable[[Path], object], path: Path) -> int:
    """How far resident memory rose at most while ``action`` ran, file pages that were mapped included."""
    # ru_maxrss survives exec, so a large parent would hide what happens here.
    Path("/proc/self/clear_refs").write_text("5")
    before = status_bytes("VmRSS")
    kept = action(path)
    peak = status_bytes("VmHWM") - before
    del kept
    return peak


def read_all(path: Path) -> int:
    """What the host does to read for a GPU; the most private memory that it took after any of the tensors."""
    before, highest = status_bytes("RssAnon"), 0
    with open_checkpoint(path) as checkpoint:
        for key in checkpoint.keys:
            for piece in checkpoint.pieces(key):
                piece.to(torch.bfloat16)
            highest = max(highest, status_bytes("RssAnon") - before)
    return highest


def fill_model(path: Path) -> nn.Module:
    model = nn.Module()
    with open_checkpoint(path) as checkpoint:
        for key, shape in checkpoint.shapes.items():
            model.register_parameter(key, nn.Parameter(torch.empty(shape, device="meta")))
        fill(model, checkpoint, device=torch.device("cpu"), dtype=torch.bfloat16)
    return model


def convert(path: Path) -> None:
    convert_to_bf16(path, path.with_suffix(".converted"))
    path.with_suffix(".converted").unlink()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    for small in folder.glob("small-*"):
        read_all(small)  # what libraries take once is not counted
    found = {f"read {name}": peak_bytes(read_all, folder / name) for name in ("safetensors", "gguf", "pth")}
    found["private, pth"] = read_all(folder / "pth")
    found |= {f"{action.__name__} safetensors": peak_bytes(action, folder / "safetensors") for action in (convert, fill_model)}
    print(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
