"""What earlier releases stored is read, shown and finished by this one; what a later one stored is left to it."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from services.common.client import GatewayClient
from services.common.errors import NewerRelease
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.plan import plan_from_json
from services.gateway import keys
from services.gateway.cuts import cuts_from_json
from services.gateway.job_json import job_from_json
from services.gateway.keys import LOCAL
from services.gateway.leases.records import LeaseTimes, holder_of, lasts_s, token_of
from services.gateway.pools.records import pool_from_json
from services.gateway.progress import progress_from_json
from services.gateway.report import report_from_json
from services.gateway.source import index_from_json
from services.gateway.store.s3.draft import draft_from_bytes
from services.gateway.webhooks.pending import pending_from_json
from tests.clips import make
from tests.integration.gateway_calls import downloaded, greys, request, sha256, until
from tests.integration.processes import gateway, running
from tests.recorded.recording import FRAMES, JOB, serving

RECORDED = Path(__file__).parents[1] / "recorded"
RELEASES = sorted(path.name for path in RECORDED.iterdir() if (path / "wire.binpb").exists())
JOBS, POOL = f"owners/{LOCAL}/jobs/{JOB}", keys.pool("echo")
pytestmark = pytest.mark.integration


@pytest.fixture(params=RELEASES)
def release(request: pytest.FixtureRequest) -> Path:
    """What a release recorded."""
    return RECORDED / str(request.param)


def restored(release: Path, stage: str, directory: Path) -> Path:
    """A directory with the store that was recorded at a stage; returns where the job is."""
    shutil.copytree(release / stage, directory / "store")
    return directory / "store" / JOBS


def spans(directory: Path) -> list[dict[str, Any]]:
    """What the worker was given."""
    log = directory / "spans"
    return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


# ---- reading ----


def test_every_record_is_read(release: Path):
    job = release / "succeeded" / JOBS
    found = job_from_json((job / "request.json").read_bytes(), (job / "state.json").read_bytes())
    plan = plan_from_json((job / "plan.json").read_bytes())
    assert (found.state, found.newer, found.plan.frames if found.plan else 0) == ("SUCCEEDED", False, FRAMES)
    assert (plan.frames, plan.source_sha256) == (FRAMES, found.source_sha256)
    assert len(index_from_json((job / "index.json").read_bytes()).pts) == FRAMES
    assert cuts_from_json((job / "cuts.json").read_bytes()).frames == ()
    assert progress_from_json((job / "progress.json").read_bytes(), found.fence).frames_done == FRAMES
    pool = pool_from_json((release / "succeeded" / POOL).read_bytes())
    assert (pool.pool, [model.name for model in pool.status.models]) == ("echo", ["echo"])
    assert "frame_count" in {check.name for check in report_from_json((job / "report.json").read_bytes())}


def test_segments_are_found_where_they_were_stored(release: Path):
    plan = plan_from_json((release / "succeeded" / JOBS / "plan.json").read_bytes())
    stored = {path.parent.name for path in (release / f"succeeded/owners/{LOCAL}/segments").rglob("*.mp4")}
    assert {plan.span_key(span) for span in plan.spans} == stored


def test_what_lies_elsewhere_is_read(release: Path):
    elsewhere = release / "elsewhere"
    presence, lease, free = (json.loads((elsewhere / f"{n}.json").read_bytes()) for n in ("presence", "lease", "lease-released"))
    assert (holder_of(presence), lasts_s(presence, LeaseTimes(lease_s=1, renew_s=0.2))) == ("gateway-a", 15)
    assert [(holder_of(record), token_of(record)) for record in (lease, free)] == [("gateway-a", 1), ("", 2)]
    assert pending_from_json((elsewhere / "webhook.json").read_bytes()).attempts == 1
    draft = draft_from_bytes((elsewhere / "draft").read_bytes())
    assert (draft.size, draft.tail, draft.next_part) == ((5 << 20) + 4, b"tail", 2)


# ---- going on ----


@pytest.mark.parametrize(
    ("stage", "sent"), [("planning", [[]]), ("restoring", [[0]]), ("joining", []), ("succeeded", [])], ids=lambda v: str(v)
)
async def test_a_job_of_an_earlier_release_is_finished(release: Path, stage: str, sent: list[list[int]], tmp_path: Path):
    job = restored(release, stage, tmp_path)
    planned = (job / "plan.json").read_bytes() if stage != "planning" else b""
    async with serving(tmp_path) as process, GatewayClient(process.address) as client:
        done = await until(client, JOB, lambda job: False)
        assert (done.state, done.result.frames, list(done.notes)) == (pb.JOB_STATE_SUCCEEDED, FRAMES, [])
        assert greys(await downloaded(client, JOB, tmp_path / "result.mp4")) == greys(release / "succeeded" / JOBS / "result.mp4")
    assert [span["stored"] for span in spans(tmp_path)] == sent, "what was stored is used, what was not is restored"
    assert not planned or (job / "plan.json").read_bytes() == planned


async def test_a_pool_of_an_earlier_release_is_known_while_it_has_no_worker(release: Path, tmp_path: Path):
    restored(release, "succeeded", tmp_path)
    process = gateway(tmp_path, "127.0.0.1:1")
    async with running(process), GatewayClient(process.address) as client:
        (model,) = (await client.models()).models
        assert (model.name, model.ready, list(model.pools)) == ("echo", False, ["echo"])


async def test_an_upload_of_an_earlier_release_goes_on(release: Path, tmp_path: Path):
    restored(release, "uploading", tmp_path)
    async with serving(tmp_path) as process, GatewayClient(process.address) as client:
        upload = await client.get_upload("half")
        assert (upload.received_bytes, upload.size_bytes, upload.complete) == (17, 34, False)
        (tmp_path / "a.mp4").write_bytes(b"half of an upload" * 2)
        done = await client.upload_file(tmp_path / "a.mp4", upload_id="half")
        assert (done.complete, done.sha256) == (True, sha256(tmp_path / "a.mp4"))


async def test_a_rolled_back_gateway_knows_every_field_of_a_plain_job(release: Path, tmp_path: Path):
    """What is added later is written only where it is used, so a release can be taken back."""
    clip = make.video(tmp_path / "a.mp4", frames=FRAMES, audio="aac")
    async with serving(tmp_path) as process, GatewayClient(process.address) as client:
        await client.create_job(request(await client.upload_file(clip)), JOB)
        assert (await until(client, JOB, lambda job: False)).state == pb.JOB_STATE_SUCCEEDED
    of_job = ("request", "state", "plan", "index", "cuts", "progress", "report")
    for name in (POOL, *(f"{JOBS}/{name}.json" for name in of_job)):
        now, then = (json.loads((store / name).read_bytes()) for store in (tmp_path / "store", release / "succeeded"))
        assert set(fields(now)) <= set(fields(then)), name


def fields(value: Any, path: str = "") -> Iterator[str]:
    """Paths of all fields of a record."""
    if isinstance(value, dict):
        for name, child in value.items():
            yield f"{path}.{name}"
            # By stage: names of stages are no fields.
            yield from fields({} if name == "stage_seconds" else child, f"{path}.{name}")
    elif isinstance(value, list):
        for child in value:
            yield from fields(child, path)


# ---- later releases ----


@pytest.mark.parametrize(("change", "known"), [(b'"grain": 2, ', ["echo"]), (b'"schema_version": 2, "schema": ', [])])
async def test_what_a_later_release_knows_of_a_pool_counts_where_it_can_be_read(
    release: Path, change: bytes, known: list[str], tmp_path: Path
):
    restored(release, "succeeded", tmp_path)
    record = (tmp_path / "store" / POOL).read_bytes()
    later = record[:1] + change + record[1:] if known else record.replace(b'"schema_version": ', change)
    (tmp_path / "store" / POOL).write_bytes(later)
    process = gateway(tmp_path, "127.0.0.1:1")
    async with running(process), GatewayClient(process.address) as client:
        assert [model.name for model in (await client.models()).models] == known
    assert (tmp_path / "store" / POOL).read_bytes() == later


@pytest.mark.parametrize("name", ["request", "state", "plan"])
async def test_a_job_that_a_later_release_began_waits_for_it(release: Path, name: str, tmp_path: Path):
    job = restored(release, "restoring", tmp_path)
    known = (job / f"{name}.json").read_bytes()
    (job / f"{name}.json").write_bytes(known[:1] + b'"grain": 2, ' + known[1:])
    async with serving(tmp_path) as process, GatewayClient(process.address) as client:
        # A job of its own shows that the gateway has looked at all.
        clip = make.video(tmp_path / "a.mp4", frames=8)
        await client.create_job(request(await client.upload_file(clip)), "other")
        assert (await until(client, "other", lambda job: False)).state == pb.JOB_STATE_SUCCEEDED
        assert (await client.get_job(JOB)).state == pb.JOB_STATE_RESTORING
        with pytest.raises(NewerRelease, match="in the hands of a later release"):
            await client.cancel_job(JOB)
        assert {span["job"] for span in spans(tmp_path)} == {"other"}
        # The later release, here one that knows the field, goes on where it was left.
        await process.end()
        written = (job / f"{name}.json").read_bytes()
        assert b'"grain": 2' in written
        (job / f"{name}.json").write_bytes(written.replace(b'"grain": 2, ', b""))
        await process.restart()
        assert (await until(client, JOB, lambda job: False)).state == pb.JOB_STATE_SUCCEEDED


async def test_two_gateways_of_two_releases_run_side_by_side(release: Path, tmp_path: Path):
    """The later one's job is shown by the earlier one, and ends; no gateway fails it."""
    job = restored(release, "restoring", tmp_path)
    state = (job / "state.json").read_bytes()
    (job / "state.json").write_bytes(state[:1] + b'"grain": 2, ' + state[1:])
    async with serving(tmp_path) as process, GatewayClient(process.address) as earlier:
        assert (await earlier.get_job(JOB)).state == pb.JOB_STATE_RESTORING
        # What the later one writes in the end.
        (job / "state.json").write_bytes((job / "state.json").read_bytes().replace(b"RESTORING", b"CANCELLED"))
        done = await until(earlier, JOB, lambda job: False)
        assert done.state == pb.JOB_STATE_CANCELLED
