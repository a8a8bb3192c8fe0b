"""``seedvr2 restore``: a video, picture or sequence of pictures from file to file, or a folder of them."""

import argparse
import asyncio
import contextlib
import os
import secrets
import tempfile
from collections.abc import Iterator
from pathlib import Path

from services.cli import batch
from services.cli.folder import restores_each
from services.cli.jobs import raise_unless_succeeded
from services.cli.output import UsageError, print_result, tell
from services.cli.own import gateway
from services.cli.plan import plan_words, remove_upload
from services.cli.progress import Bar
from services.cli.remote import Remote
from services.cli.request import job_request
from services.cli.sequence import find_pictures, pack, unpack
from services.common.client import GatewayClient
from services.common.errors import ServiceError
from services.common.formats import FORMAT_OF_SUFFIX
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb

_CANCEL_S = 10.0


async def run(arguments: argparse.Namespace) -> int:
    """Upload, restore, download; Ctrl-C cancels the job. Of a folder, all its files: see ``batch.py``."""
    if isinstance(arguments.input, Remote):
        return await _run_remote(arguments, arguments.input)
    if restores_each(arguments.input, sequence=arguments.sequence, each=arguments.each):
        if arguments.result_uri:
            raise UsageError("seedvr2 restore: results of a folder can't all be one object; leave out --result-uri.")
        return await batch.run(arguments)
    pictures = find_pictures(arguments.input)
    _check_paths(arguments.input, arguments.output, pictures is not None)
    with Bar() as bar, _sendable(arguments.input, pictures) as source:
        async with gateway(arguments, bar, arguments.data) as client:
            request = job_request(arguments, _container(arguments.output))
            request.source.upload_id = (await _uploaded(client, source, bar)).upload_id
            job = await _restored(client, request, bar)
            suffix = Path(job.result.filename).suffix
            output = _output_path(arguments.input, arguments.output, suffix, is_sequence=pictures is not None)
            await _fetch(client, job, output, bar)
    _print(arguments.json, job, output)
    return 0


async def _run_remote(arguments: argparse.Namespace, source: Remote) -> int:
    """The same of something that the gateway fetches itself."""
    if arguments.each or arguments.sequence:
        raise UsageError(f"seedvr2 restore: {source.uri} is not a directory; leave out --each and --sequence.")
    _check_output(arguments.output, Path.cwd())
    with Bar() as bar:
        async with gateway(arguments, bar, arguments.data) as client:
            request = job_request(arguments, _container(arguments.output))
            request.source.CopyFrom(source.source())
            job = await _restored(client, request, bar)
            output = _remote_output(job, arguments.output)
            await client.download_result(job.job_id, output, on_progress=bar.downloading)
    _print(arguments.json, job, output)
    return 0


@contextlib.contextmanager
def _sendable(source: Path, pictures: list[Path] | None) -> Iterator[Path]:
    """The file to send: the source itself, or a zip of its pictures."""
    if pictures is None:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="seedvr2-") as directory:
        archive = Path(directory) / f"{_stem(source)}.zip"
        pack(pictures, archive)
        yield archive


async def _fetch(client: GatewayClient, job: pb.Job, output: Path, bar: Bar) -> None:
    """Download the result; pictures of a sequence go into a directory."""
    if output.suffix.lower() in FORMAT_OF_SUFFIX:
        await client.download_result(job.job_id, output, on_progress=bar.downloading)
        return
    with tempfile.TemporaryDirectory(prefix="seedvr2-", dir=output.parent) as directory:
        archive = Path(directory) / "result.zip"
        await client.download_result(job.job_id, archive, on_progress=bar.downloading)
        await asyncio.to_thread(unpack, archive, output)


async def _uploaded(client: GatewayClient, source: Path, bar: Bar) -> pb.Upload:
    upload_id = secrets.token_hex(8)
    try:
        return await client.upload_file(source, upload_id=upload_id, on_progress=bar.uploading)
    except (ServiceError, asyncio.CancelledError):
        await remove_upload(client, upload_id)
        raise


async def _created(client: GatewayClient, request: pb.JobRequest, job_id: str) -> pb.Job:
    try:
        return await client.create_job(request, job_id)
    except ServiceError:
        # Nobody else knows the upload. Where the job was created after all, the gateway refuses to remove what it needs.
        if request.source.upload_id:
            await remove_upload(client, request.source.upload_id)
        raise


async def _restored(client: GatewayClient, request: pb.JobRequest, bar: Bar) -> pb.Job:
    job_id = secrets.token_hex(8)
    try:
        if request.source.upload_id:
            await _tell_plan(client, request, bar)
        job = await _created(client, request, job_id)
        async with contextlib.aclosing(client.watch_job(job_id)) as jobs:
            async for job in jobs:
                bar.job(job)
    except asyncio.CancelledError:
        await _cancel(client, job_id)
        raise
    raise_unless_succeeded(job)
    return job


async def _tell_plan(client: GatewayClient, request: pb.JobRequest, bar: Bar) -> None:
    """What is about to be done; where that isn't known yet, or can't be done, the job says so."""
    bar.say("Planning")
    with contextlib.suppress(ServiceError):
        tell(plan_words(await client.plan_job(request)))


async def _cancel(client: GatewayClient, job_id: str) -> None:
    try:
        async with asyncio.timeout(_CANCEL_S):
            await client.cancel_job(job_id)
    except (ServiceError, TimeoutError) as error:
        tell(f"The job {job_id} could not be cancelled: {error}")
    else:
        tell(f"The job {job_id} was cancelled.")


def _container(output: Path | None) -> str:
    return FORMAT_OF_SUFFIX.get(output.suffix.lower(), "") if output is not None else ""


def _check_paths(source: Path, output: Path | None, is_sequence: bool) -> None:
    """What can be known to be wrong before any work."""
    if not is_sequence and not source.is_file():
        raise UsageError(f"seedvr2 restore: {source} is neither a file, nor a directory or pattern of pictures.")
    _check_output(output, source.absolute().parent, is_sequence=is_sequence)
    if output is not None and output.is_file() and source.exists() and output.samefile(source):
        raise UsageError(f"seedvr2 restore: {output} is the source itself; choose another name.")


def _check_output(output: Path | None, otherwise: Path, *, is_sequence: bool = False) -> None:
    """Whether a result can be written where it shall be; without an output that is in the directory ``otherwise``."""
    directory = otherwise if output is None else output if output.is_dir() else output.absolute().parent
    if not os.access(directory, os.W_OK):
        raise UsageError(f"seedvr2 restore: {directory} is not a directory that can be written to.")
    if output is None or output.is_dir() or (is_sequence and not output.suffix):
        return
    if output.suffix.lower() not in FORMAT_OF_SUFFIX:
        raise UsageError(f"seedvr2 restore: {output} must end in one of {', '.join(FORMAT_OF_SUFFIX)}.")


def _output_path(source: Path, output: Path | None, suffix: str, *, is_sequence: bool) -> Path:
    if output is not None and (is_sequence or not output.is_dir()):
        return output
    # Pictures go into a directory of their own, as they came.
    return (output or source.absolute().parent) / f"{_stem(source)}-restored{'' if is_sequence else suffix}"


def _remote_output(job: pb.Job, output: Path | None) -> Path:
    if output is not None and not output.is_dir():
        return output
    return (output or Path.cwd()) / f"{Path(job.filename).stem}-restored{Path(job.result.filename).suffix}"


def _stem(source: Path) -> str:
    """The name of a file without its ending, of a directory, or of a pattern's directory."""
    if source.is_file():
        return source.stem
    return (source if source.is_dir() else source.parent).resolve().name


def _print(as_json: bool, job: pb.Job, output: Path) -> None:
    frames, seconds = job.result.frames, job.result.elapsed.ToTimedelta().total_seconds()
    notes = [*job.plan.warnings, *job.notes]
    for note in notes:
        tell(note)
    record = {
        "job_id": job.job_id, "model": job.plan.model, "frames": frames, "seconds": round(seconds, 3),
        "width": job.result.width, "height": job.result.height, "output": str(output.absolute()), "notes": notes,
    }  # fmt: skip
    size = f"{job.result.width}x{job.result.height}"
    text = f"{output}: {frames} frames, {size}, in {seconds:.1f} s ({seconds / max(1, frames):.2f} s a frame)"
    print_result(as_json, record, text)
