"""What tests of the gateway do again and again through the client."""

import contextlib
import hashlib
from collections.abc import AsyncIterator, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import grpc
import numpy as np
import pytest

from services.common.client import GatewayClient
from services.common.errors import ServiceError
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.rpc.status import code_of


def request(upload: pb.Upload | str, **options: Any) -> pb.JobRequest:
    """A request for an upload; ``scale``, ``frames`` and ``preview`` are short for what they set."""
    scale, frames, preview = options.pop("scale", 2.0), options.pop("frames", None), options.pop("preview", False)
    message = pb.JobRequest(**options)
    message.source.upload_id = upload if isinstance(upload, str) else upload.upload_id
    if scale and not message.HasField("target"):
        message.target.scale = scale
    if frames:
        message.range.frames.first, message.range.frames.end = frames
    if preview:
        message.priority = pb.PRIORITY_PREVIEW
    return message


async def until(client: GatewayClient, job_id: str, wanted: Any) -> pb.Job:
    """Watch a job until ``wanted(job)``, or until it ends."""
    job = pb.Job()
    async with contextlib.aclosing(client.watch_job(job_id)) as jobs:
        async for job in jobs:
            if wanted(job):
                break
    return job


async def finished(client: GatewayClient, job_id: str) -> pb.Job:
    """A job that has succeeded."""
    job = await until(client, job_id, lambda job: False)
    assert job.state == pb.JOB_STATE_SUCCEEDED, job
    return job


async def downloaded(client: GatewayClient, job_id: str, path: Path) -> Path:
    """The result as a file."""
    await client.download_result(job_id, path)
    return path


async def read_all(reading: tuple[pb.ObjectInfo, AsyncIterator[bytes]]) -> bytes:
    """All pieces of a download."""
    return b"".join([piece async for piece in reading[1]])


@contextlib.contextmanager
def refused(code: grpc.StatusCode, reason: str, text: str, field: str = "") -> Iterator[None]:
    """The block is refused with this code, reason, part of the sentence, and field."""
    with pytest.raises(ServiceError) as caught:
        yield
    error = caught.value
    assert (code_of(type(error)), type(error).__name__) == (code, reason), error.message
    assert text in error.message
    assert error.message.endswith((".", "?"))
    assert error.field == field


def packets(path: Path, kind: str) -> list[tuple[Fraction, bytes]]:
    """Time stamps and bytes of a kind of stream."""
    with av.open(str(path)) as container:
        streams = [s for s in container.streams if s.type == kind]
        return [((p.pts or 0) * p.time_base, bytes(p)) for p in container.demux(streams) if p.size] if streams else []


def stamps(path: Path) -> list[Fraction]:
    """When each frame is shown, in seconds."""
    return sorted(stamp for stamp, _ in packets(path, "video"))


def greys(path: Path) -> list[int]:
    """The grey level of each frame as a player shows them; it tells the frame's number."""
    with av.open(str(path)) as container:
        return [int(np.median(f.to_ndarray(format="rgb24")[-4:])) for f in container.decode(video=0)]


def sha256(path: Path) -> str:
    """Of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def objects(directory: Path) -> list[str]:
    """What a gateway's store holds, housekeeping left out."""
    found = (directory / "store/owners").rglob("*")
    return sorted(str(p.relative_to(directory / "store/owners")) for p in found if p.is_file())
