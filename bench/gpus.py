"""``python -m bench.gpus``: the same clips on 1, 2, 4 and 8 GPUs of this machine: the same frames? how much faster? at what cost?

Weights are random where a model has none here: time doesn't depend on them. Ranks are started here, a group for each model and
number of GPUs, and what one GPU gave is what the others are compared with. ``--backend gloo`` does the same on the CPU at small
size, for what ranks say to each other. Lines are printed as they come; tables, JSON and a picture at the end.
"""

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import multiprocessing

from bench.gpus_work import STAGES, Case, Work, run_rank
from bench.table import print_table

FULL = (Case(width=1280, height=720, frames=121), Case(width=1920, height=1080, frames=45))
QUICK = (Case(width=1280, height=720, frames=21), Case(width=1920, height=1080, frames=9))
SMALL = (Case(width=96, height=72, frames=19), Case(width=100, height=52, frames=1))
"""For nano, in fp32."""

MOST_APART, MOST_DIFFERING = 1e-5, 0.002
"""In fp32: relative L2, and the share of 8-bit samples that may differ, by 1."""

Row = dict[str, Any]


def main() -> None:
    """Run every model on every number of ranks, then print."""
    chosen = parse()
    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if chosen.backend == "nccl" and not gpus:
        sys.exit("bench.gpus needs a CUDA GPU; --backend gloo runs on the CPU")
    sizes = [int(size) for size in chosen.ranks.split(",")]
    sizes = [size for size in sizes if chosen.backend == "gloo" or size <= gpus]
    out = Path(chosen.out)
    out.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as directory:
        for work in works(chosen, sizes, directory):
            run(work)
            rows = read(Path(directory) / "results.jsonl")
            (out / "gpus.json").write_text(json.dumps(rows, indent=1))
            print(f"{time.perf_counter() - start:.0f} s", flush=True)
    print_tables(rows)
    draw(rows, out / "gpus.png")
    if faults := [size_of(row) + f" on {row['ranks']}" for row in rows if not keeps_bound(row)]:
        sys.exit(f"Not the frames of one rank: {', '.join(faults)}")


def parse() -> argparse.Namespace:
    """What is wanted."""
    parser = argparse.ArgumentParser(prog="python -m bench.gpus", description=__doc__)
    parser.add_argument("--backend", default="nccl", choices=("nccl", "gloo"))
    parser.add_argument("--ranks", default="1,2,4,8", help="how many share a clip, one after the other; 1 first, to compare with")
    parser.add_argument("--models", default="", help="by default nano, seedvr2-3b and, unless it must be quick, seedvr2-7b")
    parser.add_argument("--quick", action="store_true", help="fewer frames")
    parser.add_argument("--slice-latents", type=int, default=0, help="0: half as many as ranks, at least the model's own choice")
    parser.add_argument("--out", default="bench-output", help="directory for gpus.json and gpus.png")
    return parser.parse_args()


def works(chosen: argparse.Namespace, sizes: list[int], directory: str) -> list[Work]:
    """A group of ranks for each model and size, one rank first. On a CPU, nano is the only model that fits."""
    usual, large = ("nano,seedvr2-3b", QUICK) if chosen.quick else ("nano,seedvr2-3b,seedvr2-7b", FULL)
    models = ["nano"] if chosen.backend == "gloo" else (chosen.models or usual).split(",")
    first = Work(
        model="nano", dtype="float32", ranks=1, cases=SMALL, backend=chosen.backend, directory=directory,
        slice_latents=chosen.slice_latents,
    )  # fmt: skip
    kinds = [first if name == "nano" else replace(first, model=name, dtype="bfloat16", cases=large) for name in models]
    return [replace(kind, ranks=size) for kind in kinds for size in sorted(sizes)]


def run(work: Work) -> None:
    """Start the ranks and wait for them; what fails is printed, and the next group has its turn."""
    print(f"\n{work.model}, {work.ranks} ranks", flush=True)
    try:
        multiprocessing.spawn(run_rank, (work,), nprocs=work.ranks)
    except (multiprocessing.ProcessRaisedException, multiprocessing.ProcessExitedException) as error:
        print(f"{work.model} on {work.ranks} ranks failed: {error}", flush=True)


def read(path: Path) -> list[Row]:
    """What first ranks have written."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def print_tables(rows: list[Row]) -> None:
    """As docs/performance.md shows them."""
    head = ("model", "output", "frames", "P", "split", *(f"{stage} ms" for stage in STAGES), "whole ms/frame", "speed-up",
            "efficiency", "peak GB", *(f"{stage} comm." for stage in STAGES))  # fmt: skip
    print_table("Speed", head, [speed_cells(row, rows) for row in rows])
    head = ("model", "type", "output", "frames", "P", "latents", "restored", "frames", "8-bit differ", "by at most")
    print_table(
        "Relative L2 to one rank", head, [difference_cells(row) for row in rows if row["ranks"] > 1 and row["difference"]]
    )
    head = ("model", "output", "tokens", "P", "split", "sent MB", "expected MB", "published formula MB", "sent / published")
    print_table("Sent by a rank in a step", head, [volume_cells(row) for row in rows if row["ranks"] > 1])


def speed_cells(row: Row, rows: list[Row]) -> tuple[str, ...]:
    """One line of the first table."""
    alone = one_rank(row, rows)
    speed_up = alone["whole_ms"] / row["whole_ms"] if alone else None
    shares = row["communication"]
    return (
        row["model"], size_of(row), str(row["frames"]), str(row["ranks"]), row["split"],
        *(f"{row['ms'][stage]:.0f}" for stage in STAGES), f"{row['whole_ms'] / row['frames']:.1f}",
        f"{speed_up:.2f}" if speed_up else "", f"{speed_up / row['ranks']:.2f}" if speed_up else "", f"{max(row['peak_gb']):.1f}",
        *(f"{shares[stage]:.0%}" if shares else "" for stage in STAGES),
    )  # fmt: skip


def difference_cells(row: Row) -> tuple[str, ...]:
    """One line of the second table."""
    difference = row["difference"]
    distances = (f"{difference[part]:.1e}" for part in ("latents", "restored", "frames"))
    samples = f"{difference['differing']:.3%}", f"{difference['largest']:.0f}"
    return row["model"], row["dtype"], size_of(row), str(row["frames"]), str(row["ranks"]), *distances, *samples


def volume_cells(row: Row) -> tuple[str, ...]:
    """One line of the third table."""
    step = row["step"]
    megabytes = (f"{step[kind] / 1e6:.2f}" for kind in ("sent", "expected", "published"))
    ratio = f"{step['sent'] / step['published']:.2f}"
    return row["model"], size_of(row), str(step["tokens"]), str(row["ranks"]), row["split"], *megabytes, ratio


def keeps_bound(row: Row) -> bool:
    """Whether its frames are those of one rank, as far as its type can tell; half precision is only shown."""
    difference = row["difference"]
    if row["dtype"] != "float32" or not difference:
        return True
    near = all(difference[part] <= MOST_APART for part in ("latents", "restored", "frames"))
    return near and difference["largest"] <= 1 and difference["differing"] <= MOST_DIFFERING


def one_rank(row: Row, rows: list[Row]) -> Row | None:
    """The same clip on one rank."""
    same = ("model", "dtype", "width", "height", "frames")
    return next((other for other in rows if other["ranks"] == 1 and all(other[key] == row[key] for key in same)), None)


def size_of(row: Row) -> str:
    """Of the output."""
    return f"{row['width']}x{row['height']}"


def draw(rows: list[Row], path: Path) -> None:
    """Speed-up over ranks, a line for each model and clip."""
    try:
        from matplotlib import pyplot
    except ImportError:
        print("No picture: matplotlib isn't installed.")
        return
    clips = {(row["model"], size_of(row), row["frames"]) for row in rows if row["model"] != "nano"} or {
        (row["model"], size_of(row), row["frames"]) for row in rows
    }
    figure, axes = pyplot.subplots(figsize=(6, 4), layout="constrained")
    for clip in sorted(clips):
        points = [(row["ranks"], row, one_rank(row, rows)) for row in rows if (row["model"], size_of(row), row["frames"]) == clip]
        line = [(ranks, alone["whole_ms"] / row["whole_ms"]) for ranks, row, alone in points if alone]
        axes.plot(*zip(*line, strict=True), marker="o", label=f"{clip[0]}, {clip[1]} x {clip[2]}")
    sizes = sorted({row["ranks"] for row in rows})
    axes.plot(sizes, sizes, linestyle=":", color="grey", label="ideal")
    axes.set(xlabel="GPUs", ylabel="speed-up of the whole pipeline", xticks=sizes)
    axes.legend()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
