"""``seedvr2 jobs``: list, show, watch, cancel, retry, delete, download."""

import argparse
import contextlib
from pathlib import Path

from services.cli.connection import connected
from services.cli.output import as_record, print_result, table
from services.cli.progress import Bar, progress_words, state_words
from services.common.client import GatewayClient
from services.common.errors import InternalError, JobCancelled, all_errors
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb

_PAGE = 200


async def list_jobs(arguments: argparse.Namespace) -> int:
    """The newest jobs as a table."""
    async with connected(arguments) as client:
        jobs = await _newest(client, arguments.limit, all_owners=arguments.all_owners)
    head = ("ID", "STATE", "FRAMES", "MODEL", "CREATED", "FILE", *(("SUBJECT",) if arguments.all_owners else ()))
    rows = [_row(job) + ((job.subject or job.owner,) if arguments.all_owners else ()) for job in jobs]
    text = table(head, rows) if rows else "There are no jobs."
    print_result(arguments.json, {"jobs": [as_record(job) for job in jobs]}, text)
    return 0


async def show(arguments: argparse.Namespace) -> int:
    """One job."""
    async with connected(arguments) as client:
        job = await client.get_job(arguments.job_id)
    print_result(arguments.json, as_record(job), describe(job))
    return 0


async def watch(arguments: argparse.Namespace) -> int:
    """Follow a job to its end; with --json one object a line for each change."""
    state = None
    async with connected(arguments) as client, contextlib.aclosing(client.watch_job(arguments.job_id)) as jobs:
        with Bar() as bar:
            async for job in jobs:
                bar.job(job)
                if arguments.json or job.state != state:
                    print_result(arguments.json, as_record(job), state_words(job.state))
                state = job.state
    raise_unless_succeeded(job)
    return 0


async def cancel(arguments: argparse.Namespace) -> int:
    """Cancel a job."""
    async with connected(arguments) as client:
        job = await client.cancel_job(arguments.job_id)
    print_result(arguments.json, as_record(job), f"{job.job_id}: {state_words(job.state)}")
    return 0


async def retry(arguments: argparse.Namespace) -> int:
    """Start a job again."""
    async with connected(arguments) as client:
        job = await client.retry_job(arguments.job_id)
    print_result(arguments.json, as_record(job), f"{job.job_id}: {state_words(job.state)}")
    return 0


async def delete(arguments: argparse.Namespace) -> int:
    """Remove a job with its result."""
    async with connected(arguments) as client:
        await client.delete_job(arguments.job_id)
    print_result(arguments.json, {"job_id": arguments.job_id, "deleted": True}, f"{arguments.job_id}: deleted")
    return 0


async def download(arguments: argparse.Namespace) -> int:
    """Get a result."""
    async with connected(arguments) as client:
        job = await client.get_job(arguments.job_id)
        raise_unless_succeeded(job)
        # The name is the uploader's; nothing of it may lead out of the directory.
        name = Path(job.result.filename).name or job.job_id
        output = arguments.output or Path(name)
        output = output / name if output.is_dir() else output
        with Bar() as bar:
            info = await client.download_result(job.job_id, output, on_progress=bar.downloading)
    record = {"job_id": job.job_id, "output": str(output.absolute()), "size_bytes": info.size_bytes}
    print_result(arguments.json, record, f"{output}: {info.size_bytes / 1e6:.1f} MB")
    return 0


def raise_unless_succeeded(job: pb.Job) -> None:
    """Raise what ended a job that has no result."""
    if job.state == pb.JOB_STATE_FAILED:
        raise all_errors().get(job.failure.reason, InternalError)(job.failure.message)
    if job.state == pb.JOB_STATE_CANCELLED:
        raise JobCancelled(f"The job {job.job_id} was cancelled.")


def describe(job: pb.Job) -> str:
    """A job, a line for each thing that is known of it."""
    size = f"{job.plan.source_width}x{job.plan.source_height} to {job.plan.width}x{job.plan.height}"
    lines = {
        "job": job.job_id,
        "file": job.filename,
        "state": state_words(job.state),
        "created": job.created_at.ToDatetime().isoformat(" ", "seconds"),
        "model": job.plan.model or job.request.model,
        "size": size if job.HasField("plan") else "",
        "progress": progress_words(job.progress),
        "failure": job.failure.message,
        "result": f"{job.result.filename}, {job.result.size_bytes / 1e6:.1f} MB" if job.HasField("result") else "",
        **{f"note {number}": note for number, note in enumerate([*job.plan.warnings, *job.notes], 1)},
    }
    return "\n".join(f"{name:9} {value}" for name, value in lines.items() if value)


async def _newest(client: GatewayClient, limit: int, *, all_owners: bool) -> list[pb.Job]:
    jobs: list[pb.Job] = []
    token = ""
    while len(jobs) < limit:
        page = await client.list_jobs(min(limit - len(jobs), _PAGE), token, all_owners=all_owners)
        jobs += page.jobs
        token = page.next_page_token
        if not token:
            break
    return jobs


def _row(job: pb.Job) -> tuple[str, ...]:
    frames = f"{job.progress.frames_done}/{job.progress.frames_total}" if job.progress.frames_total else ""
    created = job.created_at.ToDatetime().isoformat(" ", "seconds")
    return job.job_id, state_words(job.state), frames, job.plan.model or job.request.model, created, job.filename
