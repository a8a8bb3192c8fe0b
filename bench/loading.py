"""``python -m bench.loading``: how long it takes to load and to convert a model of real size, and how much memory.

Writes a model of random weights as it is published (fp16 safetensors) to a temporary directory, which needs twice its size
(seedvr2-3b: 15 GB), and removes it. Each step is a process of its own, and reads from disk unless told otherwise.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from bench.table import print_table
from services.inference.gpu.model.checkpoints import convert_to_bf16
from services.inference.gpu.model.dit import Dit
from services.inference.gpu.model.kernels import choose_kernels
from services.inference.gpu.model.spec import SPECS, TEXT_KEY, ModelSpec
from services.inference.gpu.model.vae import Vae
from services.inference.gpu.model.weights import load_model
from services.inference.model_files import find_files

_PIECE_ELEMENTS = 1 << 22
Result = dict[str, float]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.loading", description=__doc__)
    parser.add_argument("--model", default="seedvr2-3b", choices=list(SPECS))
    parser.add_argument("--device", default="cpu", help="cpu or cuda (default: %(default)s)")
    parser.add_argument("--directory", help="where there is room (default: the system's temporary directory)")
    parser.add_argument("--cached", action="store_true", help="let files be read from the system's cache")
    parser.add_argument("--step", choices=list(_STEPS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        print(json.dumps(_STEPS[options.step](SPECS[options.model], Path(options.directory), torch.device(options.device))))
        return
    with tempfile.TemporaryDirectory(prefix="seedvr2-loading-", dir=options.directory) as directory:
        published = write_published(SPECS[options.model], Path(directory) / "published")
        (Path(directory) / "converted").mkdir()
        rows = [_row(step, options, published) for step in _STEPS]
    head = (
        "step",
        "s",
        "CPU s",
        "GB of files",
        "GB/s",
        "peak host memory GB",
        "private at the end GB",
        "weights on the device GB",
        "peak there GB",
    )
    print_table(f"{options.model}, bf16, {options.device}, {torch.get_num_threads()} threads", head, rows)


def write_published(spec: ModelSpec, directory: Path) -> Path:
    """A directory with the model set in fp16, of random numbers, written in pieces."""
    directory.mkdir()
    kernels = choose_kernels(torch.device("cpu"), torch.float32)
    with torch.device("meta"):
        modules = {"dit": Dit(spec.dit, kernels), "vae": Vae(spec.vae, kernels)}
    for role, module in modules.items():
        _write_fp16(directory / f"{role}.safetensors", _shapes(module))
    _write_fp16(directory / "pos_emb.safetensors", {TEXT_KEY: [spec.text_tokens, spec.dit.text_width]})
    return directory


def _shapes(module: nn.Module) -> dict[str, list[int]]:
    return {key: list(tensor.shape) for key, tensor in module.state_dict().items()}


def _write_fp16(path: Path, shapes: dict[str, list[int]]) -> None:
    header: dict[str, object] = {}
    end = 0
    for key, shape in shapes.items():
        first, end = end, end + 2 * torch.Size(shape).numel()
        header[key] = {"dtype": "F16", "shape": shape, "data_offsets": [first, end]}
    raw = json.dumps(header).encode()
    piece = memoryview((0.02 * torch.randn(_PIECE_ELEMENTS)).half().numpy()).cast("B")
    with path.open("wb") as file:
        file.write(len(raw).to_bytes(8, "little") + raw)
        for first in range(0, end, len(piece)):
            file.write(piece[: end - first])


def _load(spec: ModelSpec, directory: Path, device: torch.device) -> Result:
    started = time.monotonic()
    model = load_model(spec, directory, device, torch.bfloat16)
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    seconds = time.monotonic() - started
    weights = sum(p.nbytes for module in (model.dit, model.vae) for p in module.parameters()) + model.text.nbytes
    peak = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    return _measured(seconds) | {"weights": weights, "peak": peak}


def _convert(spec: ModelSpec, directory: Path, device: torch.device) -> Result:
    started = time.monotonic()
    for path in find_files(directory):
        convert_to_bf16(path, directory.parent / "converted" / f"{path.stem}.safetensors")
    return _measured(time.monotonic() - started) | {"weights": 0, "peak": 0}


_STEPS: dict[str, Callable[[ModelSpec, Path, torch.device], Result]] = {
    "load as published": _load,
    "convert to bf16": _convert,
    "load converted": _load,
}


def _measured(seconds: float) -> Result:
    lines = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":" in line)
    return {
        "seconds": seconds,
        "cpu": time.process_time(),
        **{name: 1024 * int(lines[name].split()[0]) for name in ("VmHWM", "RssAnon")},
    }


def _row(step: str, options: argparse.Namespace, published: Path) -> tuple[str, ...]:
    directory = published.with_name("converted") if step == "load converted" else published
    size = sum(path.stat().st_size if options.cached else _uncached(path) for path in find_files(directory))
    command = [sys.executable, "-m", "bench.loading", "--step", step, "--model", options.model, "--device", options.device]
    done = subprocess.run([*command, "--directory", str(directory)], check=True, stdout=subprocess.PIPE, text=True)
    found = json.loads(done.stdout)
    gigabytes = [f"{found[name] / 1e9:.2f}" if found[name] else "" for name in ("VmHWM", "RssAnon", "weights", "peak")]
    return (
        step,
        f"{found['seconds']:.1f}",
        f"{found['cpu']:.1f}",
        f"{size / 1e9:.2f}",
        f"{size / found['seconds'] / 1e9:.2f}",
        *gigabytes,
    )


def _uncached(path: Path) -> int:
    """Let the system forget a file's content; returns its size in bytes."""
    with path.open("rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return os.fstat(file.fileno()).st_size


if __name__ == "__main__":
    main()
