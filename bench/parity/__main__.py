"""``python -m bench.parity DIR…``: compute what the reference computed and say how far apart it is.

Each folder of goldens is known by its files. The exit status is 0 where everything is within tolerance, 1 where something isn't
or a folder is unknown. ``--device cuda`` compares a GPU instead, in fp32 and in bf16, on both paths: transformer and autoencoder.
"""

import argparse
import sys
from pathlib import Path

import torch
from safetensors import SafetensorError

from bench.parity import device, dit, nano, pipeline, vae
from bench.parity.measure import Folder, Row
from bench.table import print_table

MODULES = (dit, vae, nano, pipeline)

_HEAD = ("case", "tensors", "max abs", "relative L2", "verdict")


def main(arguments: list[str] | None = None) -> int:
    """Go through all folders, then say what failed."""
    parser = argparse.ArgumentParser(prog="python -m bench.parity", description=__doc__)
    parser.add_argument("folders", nargs="+", type=Path, metavar="DIR", help="a folder of goldens, such as tests/goldens/dit")
    parser.add_argument("--device", help="cuda: compare what this device computes; by default all that the CPU does")
    chosen, failures = parser.parse_args(arguments), []
    with torch.inference_mode():
        for path in chosen.folders:
            failures += check(path, chosen.device and torch.device(chosen.device))
    print("\n" + ("\n".join(f"FAILED: {failure}" for failure in failures) if failures else "All within tolerance."))
    return 1 if failures else 0


def check(path: Path, on: torch.device | None = None) -> list[str]:
    """Print a folder's table; what failed, in words. ``on``: a device to compare, instead of everything on the CPU."""
    folder = Folder(path)
    module = next((module for module in MODULES if folder.has(module.MARK)), None)
    if module is None:
        known = ", ".join(module.__name__.rpartition(".")[2] for module in MODULES)
        return [f"{path} is no folder of goldens that this program knows ({known}): none of their files is in it."]
    rows, trouble = [], []
    try:
        for row in module.rows(folder) if on is None else device.rows(folder, on):
            rows.append(row)
    except (OSError, SafetensorError, ValueError) as error:
        trouble = [f"{path}: the comparison ended after {len(rows)} cases, because a file is missing or broken: {error}"]
    print_table(str(path), _HEAD, [_cells(row) for row in rows])
    for file, keys in folder.unused(module.WEIGHTS) if on is None else ():
        print_left_out(file, keys, module.LEFT_OUT)
    return [f"{path}: {row.case}" for row in rows if not row.passed] + trouble


def _cells(row: Row) -> tuple[str, ...]:
    return (row.case, str(row.tensors), f"{row.largest:.1e}", f"{row.relative:.1e}", "pass" if row.passed else "FAIL")


def print_left_out(file: str, keys: list[str], reasons: dict[str, str]) -> None:
    """What nobody compared, and why if that is known."""
    named = [(key, next((why for part, why in reasons.items() if part in f"{file}: {key}"), "no rule for it")) for key in keys]
    for reason in dict.fromkeys(why for _, why in named):
        of_reason = [key for key, why in named if why == reason]
        print(f"\nNot compared in {file}: {', '.join(of_reason)} ({reason})")


if __name__ == "__main__":
    sys.exit(main())
