"""What is used is booked once, whatever dies, and what is used up is refused, over real processes."""

import json
from pathlib import Path

import httpx
import pytest

from services.common.errors import PermissionDenied, QuotaExceeded
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.gateway.identity.caller import Role, owner_of
from tests.clips import make
from tests.integration.gateway_calls import request, until
from tests.integration.identities import Identity, identity, token_file
from tests.integration.processes import echo_worker, gateway, running

pytestmark = pytest.mark.integration

ALICE, BOB, ROOT = identity("alice"), identity("bob"), identity("root", Role.ADMIN)
FRAMES, MEGAPIXELS = 48, 48 * 128 * 96 / 1e6


@pytest.fixture(autouse=True)
def _files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quotas = tmp_path / "quotas.json"
    quotas.write_text(json.dumps({"subjects": {"alice": {"megapixels_month": MEGAPIXELS}, "bob": {"active_jobs": 0}}}))
    monkeypatch.setenv("SEEDVR2_IDENTITY_TOKEN_FILE", str(token_file(tmp_path / "tokens", ALICE, BOB, ROOT)))
    monkeypatch.setenv("SEEDVR2_IDENTITY_QUOTA_FILE", str(quotas))


async def test_a_job_is_booked_once_though_its_gateway_is_killed_and_a_quota_that_is_used_up_refuses_the_next(tmp_path: Path):
    hold = tmp_path / "hold"
    hold.touch()
    worker = echo_worker(tmp_path / "worker", hold_file=hold)
    clip = make.video(tmp_path / "clip.mp4", frames=FRAMES)
    async with running(worker):
        process = gateway(tmp_path / "gateway", worker, span_seconds=0.64, rest_address="127.0.0.1:0")
        async with running(process):
            async with ALICE.client(process.address) as alice:
                upload = await alice.upload_file(clip)
                await alice.create_job(request(upload), job_id="j")
                job = await until(alice, "j", lambda job: job.progress.segments_done >= 1)
                assert job.state == pb.JOB_STATE_RESTORING
            await process.kill()
            hold.unlink()
            await process.restart()
            async with ALICE.client(process.address) as alice:
                job = await until(alice, "j", lambda job: False)
                assert job.state == pb.JOB_STATE_SUCCEEDED
                told = await alice.usage()
                (used,) = told.usages
                assert (used.subject, used.jobs, used.owner) == ("alice", 1, "")
                assert used.megapixels == pytest.approx(MEGAPIXELS)
                assert 0 < used.gpu_seconds <= 0.25 * job.plan.segments
                assert told.quota.megapixels_month == pytest.approx(MEGAPIXELS)
                assert not told.quota.HasField("active_jobs")
                with pytest.raises(QuotaExceeded, match="output megapixels") as caught:
                    await alice.create_job(request(upload), job_id="k")
                assert caught.value.field == "megapixels_month"
                assert (await alice.create_job(request(upload), job_id="j")).job_id == "j", "what exists is no new job"
                await alice.delete_job("j")
                assert (await alice.usage()).usages[0].jobs == 1, "what was used stays used"
            async with BOB.client(process.address) as bob, ROOT.client(process.address) as root:
                assert (await bob.usage()).usages[0].jobs == 0
                with pytest.raises(PermissionDenied):
                    await bob.usage(all_owners=True)
                (all_of_it,) = (await root.usage(all_owners=True)).usages
                assert (all_of_it.subject, all_of_it.owner, all_of_it.jobs) == ("alice", owner_of("alice"), 1)
            await _check_over_http(f"http://{process.ready['rest_address']}/v1/usage", told.month)


async def _check_over_http(url: str, month: str) -> None:
    """The same is told there."""
    async with httpx.AsyncClient(timeout=20) as http:

        async def told(who: Identity, **query: str) -> httpx.Response:
            return await http.get(url, params=query, headers={"Authorization": f"Bearer {who.token}"})

        mine = (await told(ALICE)).json()
        (used,) = mine["data"]
        assert (mine["month"], used["subject"], used["owner"], used["jobs"]) == (month, "alice", None, 1)
        assert used["megapixels"] == pytest.approx(MEGAPIXELS)
        assert mine["quota"] == {"active_jobs": None, "gpu_seconds_month": None, "megapixels_month": pytest.approx(MEGAPIXELS)}
        assert (await told(BOB)).json()["data"][0]["jobs"] == 0
        assert (await told(BOB, all_owners="true")).status_code == 403
        assert [each["owner"] for each in (await told(ROOT, all_owners="true")).json()["data"]] == [owner_of("alice")]
        assert (await told(ALICE, month="2020-01")).json()["data"][0]["jobs"] == 0
        assert (await told(ALICE, month="May")).json()["error"]["param"] == "month"
