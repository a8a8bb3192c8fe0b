"""``python -m bench.service``: a clip through all services against the bare stages in the worker.

With a model that has no weights here, random ones are written at their real size and removed again: time doesn't depend on them.
The first job warms up. Decoding and encoding go on beside the stages; where they are slower than these, they are what limits.
"""

import argparse
import asyncio
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.loading import write_published
from bench.table import print_table
from services.cli.local import LocalStack, StackOptions
from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.inference.gpu.model.spec import SPECS
from tests.clips.noisy import noisy_clip

BARE = ("prepare", "vae_encode", "dit", "vae_decode", "colour")
"""Stages on the device; they follow each other."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A clip and what restores it."""

    model: str
    """Its name."""

    width: int
    """Of the clip, pixels."""

    height: int
    """Of the clip, pixels."""

    frames: int
    """Of the clip."""

    scale: float = 1.0
    """Of the result."""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.service", description=__doc__)
    parser.add_argument("--model", default="nano", choices=list(SPECS))
    parser.add_argument("--size", default="640x360", help="of the source, pixels (default: %(default)s)")
    parser.add_argument("--frames", type=int, default=241)
    parser.add_argument("--scale", type=float, default=2.0, help="of the result (default: %(default)s)")
    parser.add_argument("--encoder-threads", type=int, default=4)
    parser.add_argument("--directory", help="where models, clips and logs are kept; empty: a temporary one")
    chosen = parser.parse_args()
    width, height = (int(side) for side in chosen.size.split("x"))
    os.environ["SEEDVR2_INFERENCE_ENCODER_THREADS"] = str(chosen.encoder_threads)
    case = Case(model=chosen.model, width=width, height=height, frames=chosen.frames, scale=chosen.scale)
    with tempfile.TemporaryDirectory(prefix="seedvr2-service-") as temporary:
        Path(chosen.directory or temporary).mkdir(parents=True, exist_ok=True)
        asyncio.run(measure(case, Path(chosen.directory or temporary)))


async def measure(case: Case, directory: Path) -> None:
    """A warm-up, the clip, one table. ``directory`` is there."""
    clips = [_clip(case, directory / f"{frames}.mp4", frames) for frames in (case.frames // 2 + 1, case.frames)]
    models = _model_directory(case.model, directory)
    options = StackOptions(data_directory=directory / f"data-{time.time_ns()}", model=case.model, model_directory=models)
    async with LocalStack(options, lambda _: None) as stack, GatewayClient(stack.gateway_address) as client:
        for clip in clips:
            elapsed, job = await _restored(client, clip, case)
    print_table(f"{case.model}, {case.frames} frames, through all services", _HEAD, [_row(case, job, elapsed)])


_HEAD = ("result", *(f"{stage} ms" for stage in BARE), "bare stages ms/frame", "decode, encode, join ms",
         "upload to download ms/frame", "difference", "service / bare")  # fmt: skip


def _model_directory(model: str, directory: Path) -> str:
    if model == "nano":
        return ""
    if not (directory / "models" / model).exists():
        (directory / "models").mkdir(exist_ok=True)
        write_published(SPECS[model], directory / "models" / model)
    return str(directory / "models")


def _clip(case: Case, path: Path, frames: int) -> Path:
    return noisy_clip(path, width=case.width, height=case.height, frames=frames)


async def _restored(client: GatewayClient, clip: Path, case: Case) -> tuple[float, pb.Job]:
    """Seconds from the first byte sent to the last one received, and the job."""
    start = time.perf_counter()
    upload = await client.upload_file(clip)
    target = pb.Target(scale=case.scale)
    job = await client.create_job(pb.JobRequest(source=pb.Source(upload_id=upload.upload_id), target=target))
    async for change in client.watch_job(job.job_id):
        job = change
    if job.state != pb.JOB_STATE_SUCCEEDED:
        raise SystemExit(f"the job is {pb.JobState.Name(job.state)}: {job.failure.message}")
    await client.download_result(job.job_id, clip.with_suffix(".result.mp4"))
    return time.perf_counter() - start, job


def _row(case: Case, job: pb.Job, elapsed: float) -> tuple[str, ...]:
    each = {stage: seconds * 1e3 / case.frames for stage, seconds in job.progress.stage_seconds.items()}
    bare, whole = sum(each.get(stage, 0.0) for stage in BARE), elapsed * 1e3 / case.frames
    beside = ", ".join(f"{each.get(stage, 0.0):.1f}" for stage in ("decode", "encode", "join"))
    return (
        f"{job.result.width}x{job.result.height}", *(f"{each.get(stage, 0.0):.1f}" for stage in BARE), f"{bare:.1f}", beside,
        f"{whole:.1f}", f"{whole - bare:.1f}", f"{whole / bare:.2f}",
    )  # fmt: skip


if __name__ == "__main__":
    main()
