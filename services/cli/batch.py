"""``seedvr2 restore DIR -o DIR``: every video and picture of a folder, several at a time, each once.

Ids of uploads and jobs follow from the files and the options, so the same command after an interruption, or after a failure,
finds its jobs again and goes on with them.
"""

import argparse
import asyncio
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from services.cli.folder import Record, files_of, job_key, options_key, stems, upload_key
from services.cli.jobs import raise_unless_succeeded
from services.cli.output import UsageError, print_result, tell
from services.cli.own import gateway
from services.cli.progress import Bar
from services.cli.request import job_request
from services.common.client import GatewayClient
from services.common.errors import AlreadyExists, JobNotFound, ServiceError
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.transfer import measure_file

_QUEUE_S = 7 * 24 * 3600.0
_DATA = ".seedvr2-data"
_STOPPED = frozenset({pb.JOB_STATE_FAILED, pb.JOB_STATE_CANCELLED})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Outcome:
    """What became of a file: restored, skipped or failed."""

    state: str
    text: str
    fields: Mapping[str, object]


async def run(arguments: argparse.Namespace) -> int:
    """Restore what isn't done; exit code 1 where a file failed."""
    source, output = arguments.input, _output_directory(arguments.input, arguments.output)
    files, others = files_of(source)
    if others:
        tell(f"Left out of {source}, neither videos nor pictures: {others}.")
    folder = _Folder(arguments, files, output)
    try:
        await folder.restore()
    except asyncio.CancelledError:
        where = f"The jobs go on at {arguments.server}" if arguments.server else f"What was done is kept in {folder.data}"
        tell(f"{where}; the same command goes on from here.")
        raise
    return folder.summary()


def _output_directory(source: Path, output: Path | None) -> Path:
    output = output or source.absolute().with_name(f"{source.resolve().name}-restored")
    if output.exists() and (not output.is_dir() or output.samefile(source)):
        raise UsageError(f"seedvr2 restore: {output} must be a directory, and not the one that is restored.")
    try:
        output.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"seedvr2 restore: can't make the directory {output}: {error.strerror}.") from error
    if not os.access(output, os.W_OK):
        raise UsageError(f"seedvr2 restore: {output} is not a directory that can be written to.")
    return output


class _Folder:
    def __init__(self, arguments: argparse.Namespace, files: list[Path], output: Path) -> None:
        self._arguments = arguments
        self._files = files
        self._output = output
        self._record = Record(output)
        self._options = options_key(job_request(arguments))
        self._stems = stems(files)
        self._outcomes: list[_Outcome] = []
        self._places = asyncio.Semaphore(arguments.at_once)
        self.data: Path = arguments.data or output / _DATA
        """Where services of our own keep uploads and jobs."""

    async def restore(self) -> None:
        with Bar() as bar:
            todo = [path for path in self._files if not self._record.is_done(path, self._options)]
            for path in self._files:
                if path not in todo:
                    done = self._record.output(path)
                    self._tell(path, _Outcome(state="skipped", text=f"is done, {done}", fields={"output": str(done.absolute())}))
            if not todo:
                return
            async with gateway(self._arguments, bar, self.data) as client, asyncio.TaskGroup() as group:
                for path in todo:
                    group.create_task(self._one(client, path, bar))
        if not (self._arguments.server or self._arguments.data or self._failed):
            await asyncio.to_thread(shutil.rmtree, self.data, ignore_errors=True)

    def summary(self) -> int:
        counts = {state: sum(o.state == state for o in self._outcomes) for state in ("restored", "skipped", "failed")}
        text = ", ".join(f"{number} {state}" for state, number in counts.items() if number)
        print_result(self._arguments.json, {"files": len(self._files), **counts}, f"{len(self._files)} files: {text}")
        return 1 if self._failed else 0

    @property
    def _failed(self) -> bool:
        return any(outcome.state == "failed" for outcome in self._outcomes)

    async def _one(self, client: GatewayClient, path: Path, bar: Bar) -> None:
        async with self._places:
            try:
                outcome = await self._restored(client, path)
            except ServiceError as error:
                fields = {"error": {"code": type(error).__name__, "message": error.message}}
                outcome = _Outcome(state="failed", text=f"failed: {error.message}", fields=fields)
            except OSError as error:
                text = f"{error.filename or path}: {error.strerror or error}."
                outcome = _Outcome(state="failed", text=f"failed: {text}", fields={"error": {"code": "OSError", "message": text}})
            self._tell(path, outcome)
            bar.files(len(self._outcomes), len(self._files))

    async def _restored(self, client: GatewayClient, path: Path) -> _Outcome:
        job = await self._job(client, path)
        raise_unless_succeeded(job)
        output = self._output / (self._stems[path] + Path(job.result.filename).suffix)
        if output.exists() and not self._record.owns(output) and not self._arguments.overwrite:
            raise AlreadyExists(f"{output} was there before; move it away, or give --overwrite.")
        await client.download_result(job.job_id, output)
        self._record.add(path, output, self._options)
        seconds, frames = job.result.elapsed.ToTimedelta().total_seconds(), job.result.frames
        size = f"{job.result.width}x{job.result.height}"
        return _Outcome(
            state="restored", text=f"{output}, {frames} frames, {size}, in {seconds:.1f} s",
            fields={"job_id": job.job_id, "output": str(output.absolute()), "frames": frames, "seconds": round(seconds, 3),
                    "width": job.result.width, "height": job.result.height, "notes": [*job.plan.warnings, *job.notes]},
        )  # fmt: skip

    async def _job(self, client: GatewayClient, path: Path) -> pb.Job:
        """The job of a file when it has ended: found, begun again, or new."""
        _, sha256 = await asyncio.to_thread(measure_file, path)
        upload_id = upload_key(path, sha256)
        job_id = job_key(upload_id, self._options)
        try:
            if (await client.get_job(job_id)).state in _STOPPED:
                await client.retry_job(job_id)
        except JobNotFound:
            await client.upload_file(path, upload_id=upload_id)
            request = job_request(self._arguments)
            request.source.upload_id = upload_id
            await client.create_job(request, job_id, queue_s=_QUEUE_S)
        return await client.wait_job(job_id)

    def _tell(self, path: Path, outcome: _Outcome) -> None:
        self._outcomes.append(outcome)
        record = {"file": str(path), "state": outcome.state, **outcome.fields}
        print_result(self._arguments.json, record, f"{path}: {outcome.text}")
