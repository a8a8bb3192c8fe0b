"""``seedvr2 plan``: what restoring would do, without doing it."""

import argparse
import asyncio
import contextlib
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

from services.cli.output import UsageError, as_record, print_result, tell
from services.cli.own import gateway
from services.cli.progress import Bar, clock
from services.cli.request import job_request
from services.common.client import GatewayClient
from services.common.errors import NotFound, ServiceError
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb

_REMOVE_S = 10.0


async def run(arguments: argparse.Namespace) -> int:
    """A line, or with --json an object, for each file; what a result will not keep as it is goes to stderr."""
    for path in arguments.inputs:
        if not path.is_file():
            raise UsageError(f"seedvr2 plan: {path} is not a file.")
    with Bar() as bar:
        async with gateway(arguments, bar, arguments.data) as client:
            for path in arguments.inputs:
                async with _uploaded(client, path, bar) as upload:
                    bar.say("Planning")
                    plan = await client.plan_job(_request(arguments, upload.upload_id))
                print_result(arguments.json, {"file": str(path), **as_record(plan)}, f"{path}: {plan_words(plan)}")
                for warning in plan.warnings if not arguments.json else ():
                    tell(f"{path}: {warning}")
    return 0


def plan_words(plan: pb.PlanSummary) -> str:
    """For example "640x360 to 1280x720, 250 frames (0:10) in 1 span; nano, mp4; about 1:20, 0.5 GB of device memory"."""
    seconds = plan.duration.ToTimedelta().total_seconds()
    parts = [
        f"{plan.source_width}x{plan.source_height} to {plan.width}x{plan.height}, {_count(plan.frames, 'frame')} "
        f"({clock(round(seconds))}) in {_count(plan.spans, 'span')}; {plan.model}, {plan.container}"
    ]
    needs = []
    if plan.HasField("predicted_time"):
        needs.append(f"about {clock(plan.predicted_time.seconds)}")
    if plan.predicted_memory_bytes:
        needs.append(f"{plan.predicted_memory_bytes / 1e9:.1f} GB of device memory")
    return "; ".join([*parts, ", ".join(needs)]) if needs else parts[0]


async def remove_upload(client: GatewayClient, upload_id: str) -> None:
    """Remove an upload that nobody else knows, or say why that failed."""
    try:
        async with asyncio.timeout(_REMOVE_S):
            await client.delete_upload(upload_id)
    except NotFound:
        return
    except (ServiceError, TimeoutError) as error:
        tell(f"The upload {upload_id} could not be removed: {error or 'no answer in time'}")


@contextlib.asynccontextmanager
async def _uploaded(client: GatewayClient, path: Path, bar: Bar) -> AsyncIterator[pb.Upload]:
    upload_id = secrets.token_hex(8)
    try:
        yield await client.upload_file(path, upload_id=upload_id, on_progress=bar.uploading)
    finally:
        await remove_upload(client, upload_id)


def _request(arguments: argparse.Namespace, upload_id: str) -> pb.JobRequest:
    request = job_request(arguments)
    request.source.upload_id = upload_id
    return request


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
