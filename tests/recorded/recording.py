"""Makes a gateway write every kind of record, and stops it in the middle of jobs."""

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator
from pathlib import Path

from services.common.client import GatewayClient
from services.gateway.keys import LOCAL, Ref
from services.gateway.leases.records import LeaseTimes, Names, new_job_lease, new_presence, released, taken
from services.gateway.store.s3.draft import Draft, draft_to_bytes
from services.gateway.webhooks.pending import Pending, begun, pending_to_json
from tests.clips import make
from tests.integration.gateway_calls import finished, request
from tests.integration.processes import Process, echo_worker, gateway, running
from tests.integration.rig import rig

JOB, FRAMES, SEGMENT_FRAMES = "recorded", 24, 8
STAGES = ("planning", "restoring", "joining", "succeeded", "uploading")
_POLL_S, _TRIES = 0.002, 20
_PIECE = b"half of an upload"


async def record(target: Path, work: Path) -> None:
    """Write a store for each of STAGES, and records that lie elsewhere, into ``target``."""
    clip = make.video(work / "a.mp4", frames=FRAMES, audio="aac")
    for stage in ("planning", "joining"):
        _keep(await _caught(stage.upper(), clip, work / stage), target / stage)
    _keep(await _held(clip, work / "restoring"), target / "restoring")
    _keep(await _ended(clip, work / "succeeded"), target / "succeeded")
    _keep(await _half_sent(work / "uploading"), target / "uploading")
    _elsewhere(target / "elsewhere")


async def _caught(state: str, clip: Path, directory: Path) -> Path:
    """A store whose gateway was killed in a short state."""
    for number in range(_TRIES):
        async with rig(directory / str(number), clip) as it:
            found = it.store / f"store/owners/{LOCAL}/jobs/{JOB}/state.json"
            await it.client.create_job(request(it.upload), JOB)
            while not (found.exists() and _state(found) in (state, "SUCCEEDED")):
                await asyncio.sleep(_POLL_S)
            await it.gateway.kill()
            if _state(found) == state:
                return it.store
    raise RuntimeError(f"no job was caught in {state}; try again")


async def _held(clip: Path, directory: Path) -> Path:
    async with rig(directory, clip) as it:
        await it.begun(JOB)
        await it.gateway.kill()
        return it.store


async def _ended(clip: Path, directory: Path) -> Path:
    async with rig(directory, clip) as it:
        await it.client.create_job(request(it.upload), JOB)
        await finished(it.client, JOB)
        return it.store


async def _half_sent(directory: Path) -> Path:
    async with serving(directory) as process, GatewayClient(process.address) as client:
        await client.create_upload("a.mp4", 2 * len(_PIECE), "half")

        async def pieces() -> AsyncIterator[bytes]:
            yield _PIECE

        await client.write_upload("half", 0, pieces(), finish=False)
        return process._directory


def _elsewhere(target: Path) -> None:
    """What is not in the store of a directory: objects of a cluster, and records that only S3 or the web need."""
    names, times, now = Names(namespace="media", instance="seedvr2"), LeaseTimes(lease_s=15, renew_s=5), time.time()
    lease = new_job_lease(names, Ref(LOCAL, JOB), "gateway-a", now)
    pending = begun(Pending(created_at=now), "event", now, 10)
    draft = Draft(upload_id="u", parts=((1, "tag", 5 << 20),), next_part=2, tail=b"tail")
    target.mkdir(parents=True)
    (target / "presence.json").write_text(json.dumps(new_presence(names, "gateway-a", times, now)))
    (target / "lease.json").write_text(json.dumps(lease))
    (target / "lease-released.json").write_text(json.dumps(released(taken(lease, "gateway-b", now))))
    (target / "webhook.json").write_bytes(pending_to_json(pending))
    (target / "draft").write_bytes(draft_to_bytes(draft))


@contextlib.asynccontextmanager
async def serving(directory: Path) -> AsyncIterator[Process]:
    """A gateway on whatever store lies in ``directory``, and its worker."""
    worker = echo_worker(directory / "worker", log_file=directory / "spans")
    async with running(worker):
        process = gateway(directory, worker, segment_frames=SEGMENT_FRAMES, fingerprint_wait_s=0.5)
        async with running(process):
            yield process


def _keep(directory: Path, target: Path) -> None:
    shutil.copytree(directory / "store", target, ignore=shutil.ignore_patterns(".*"))


def _state(path: Path) -> str:
    return str(json.loads(path.read_bytes())["state"])
