"""Retention over a real store: what expires goes, what is needed stays."""

import asyncio
import logging
import os
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import ClusterUnavailable, JobNotFound, UploadNotFound
from services.common.metrics import GatewayMetrics
from services.gateway import jobs, keys, records
from services.gateway.job_request import JobRequest
from services.gateway.jobs import State
from services.gateway.keys import LOCAL, Ref
from services.gateway.leases.files import FileLease, FileLeases
from services.gateway.ports import Leases
from services.gateway.store.local import LocalStore
from services.gateway.sweeping import Sweeper, SweepSettings
from services.gateway.uploads import Uploads
from tests.fakes.kubernetes.cluster import Cluster
from tests.unit.gateway.examples import job, ref
from tests.unit.gateway.leases.test_kubernetes import die, taken
from tests.unit.gateway.leases.test_kubernetes import gateway as cluster_gateway
from tests.unit.gateway.test_control import REQUEST, Gateway, started, upload

DAY_S = 86400.0
JOB = ref("a")


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with started(tmp_path / "store") as gateway:
        await upload(gateway, tmp_path)
        yield gateway


def uploads(gateway: Gateway) -> Uploads:
    return gateway.service.servicer._uploads


def keep(gateway: Gateway, **changes: float) -> None:
    """Change how long things are kept."""
    sweeper = gateway.service._sweeper
    sweeper._settings = replace(sweeper._settings, **changes)


async def ended(gateway: Gateway, name: str = "a", request: JobRequest = REQUEST) -> None:
    """A job that has ended, with nobody at work on it any more."""
    await gateway.control.create(ref(name), request)
    await gateway.until(name, State.SUCCEEDED)
    while await records.marked(gateway.store):
        await asyncio.sleep(0.01)


def make_old(gateway: Gateway, key: str, seconds: float) -> None:
    """Have all objects whose keys begin so written some time ago."""
    at = time.time() - seconds
    for path in (gateway.store._root / key).rglob("*"):
        os.utime(path, (at, at))


async def test_after_everything_has_expired_no_object_is_left(gateway: Gateway):
    await ended(gateway)
    await ended(gateway, "b", JobRequest(upload_id="u", scale=1.0, frames=(0, 8)))
    await uploads(gateway).create(ref("begun"), "b.mp4", 0)
    await gateway.store.append(keys.upload(ref("begun"), "data"), 0, b"abc")
    await gateway.store.write(keys.segment(LOCAL, "of-no-plan", "s.mp4"), _pieces(b"x"))
    await gateway.store.append(keys.upload(ref("of-no-upload"), "data"), 0, b"abc")
    keep(gateway, keep_jobs_s=1e-6, keep_uploads_s=1e-6, keep_unfinished_s=1e-6, leftover_s=0.0)
    await asyncio.sleep(0.05)
    for _ in range(2):
        await gateway.service._sweeper.sweep()
    assert [p for p in (gateway.store._root / "owners").rglob("*") if p.is_file()] == []
    assert await gateway.store.keys("active/") == []
    assert await gateway.book.page(LOCAL) == []


async def test_nothing_goes_before_its_time(gateway: Gateway):
    await ended(gateway)
    await uploads(gateway).create(ref("begun"), "b.mp4", 0)
    await gateway.store.write(keys.segment(LOCAL, "of-no-plan", "s.mp4"), _pieces(b"x"))
    before = await gateway.store.keys("owners/")
    await gateway.service._sweeper.sweep()
    assert await gateway.store.keys("owners/") == before


async def test_for_ever_is_for_ever(gateway: Gateway):
    await ended(gateway)
    keep(gateway, keep_jobs_s=0.0, keep_uploads_s=0.0, keep_unfinished_s=0.0)
    make_old(gateway, "owners", 9999 * DAY_S)
    before = await gateway.store.keys("owners/")
    await gateway.service._sweeper.sweep()
    assert await gateway.store.keys("owners/") == before


async def test_an_upload_stays_as_long_as_a_job_refers_to_it(gateway: Gateway):
    await ended(gateway)
    make_old(gateway, "owners/local/uploads", 99 * DAY_S)
    await gateway.service._sweeper.sweep()
    assert (await uploads(gateway).get(ref("u"))).complete
    await gateway.control.delete(JOB)
    await gateway.service._sweeper.sweep()
    with pytest.raises(UploadNotFound):
        await uploads(gateway).get(ref("u"))


async def test_an_upload_that_still_grows_is_not_abandoned(gateway: Gateway):
    await uploads(gateway).create(ref("begun"), "b.mp4", 0)
    await gateway.store.append(keys.upload(ref("begun"), "data"), 0, b"abc")
    make_old(gateway, "owners/local/uploads", 99 * DAY_S)
    await gateway.store.append(keys.upload(ref("begun"), "data"), 3, b"def")
    await gateway.service._sweeper.sweep()
    assert (await uploads(gateway).get(ref("begun"))).received_bytes == 6
    make_old(gateway, "owners/local/uploads", 4 * DAY_S)
    await gateway.service._sweeper.sweep()
    with pytest.raises(UploadNotFound):
        await uploads(gateway).get(ref("begun"))


async def test_a_job_that_runs_keeps_what_it_has_however_old(gateway: Gateway):
    gateway.workers.go.clear()
    await gateway.control.create(JOB, REQUEST)
    while not (segments := await gateway.store.keys(keys.segments(LOCAL))):
        await asyncio.sleep(0.01)
    make_old(gateway, "owners", 99 * DAY_S)
    await gateway.service._sweeper.sweep()
    assert await gateway.store.keys(keys.segments(LOCAL)) == segments
    gateway.workers.go.set()
    await gateway.until("a", State.SUCCEEDED)
    assert gateway.workers.spans == 1


async def test_an_expired_job_takes_along_only_what_no_other_needs(gateway: Gateway):
    await ended(gateway)
    await ended(gateway, "b", replace(REQUEST, labels=(("x", "y"),)))
    record = await gateway.store.get(keys.job(JOB, "state.json"))
    await gateway.book.update(JOB, lambda job: replace(job, ended_at=time.time() - 31 * DAY_S))
    assert record != await gateway.store.get(keys.job(JOB, "state.json"))
    await gateway.service._sweeper.sweep()
    with pytest.raises(JobNotFound):
        await gateway.book.look(JOB)
    assert (await gateway.service.servicer._results.playlist(ref("b"))).segments == 3


async def test_segments_of_an_owner_whose_job_can_not_be_read_stay(gateway: Gateway):
    await gateway.store.put(keys.job(ref("later"), "request.json"), b'{"schema_version": 99}')
    await gateway.store.write(keys.segment(LOCAL, "perhaps-its", "s.mp4"), _pieces(b"x"))
    make_old(gateway, "owners", 99 * DAY_S)
    before = await gateway.store.keys("owners/")
    await gateway.service._sweeper.sweep()
    assert await gateway.store.keys("owners/") == before


@pytest.mark.parametrize("name", ["request", "state", "plan"])
async def test_segments_of_an_owner_whose_job_a_later_release_wrote_stay(gateway: Gateway, name: str):
    await ended(gateway)
    data, _ = await gateway.store.get(keys.job(JOB, f"{name}.json"))
    await gateway.store.put(keys.job(JOB, f"{name}.json"), data[:1] + b'"grain": 2, ' + data[1:])
    before = await gateway.store.keys(keys.segments(LOCAL))
    keep(gateway, leftover_s=0.0, keep_uploads_s=1e-6)
    await gateway.service._sweeper.sweep()
    assert await gateway.store.keys(keys.segments(LOCAL)) == before != []
    assert (await uploads(gateway).get(ref("u"))).complete


async def test_a_job_of_an_earlier_release_that_nobody_looks_after_is_taken_up(gateway: Gateway):
    stored = await uploads(gateway).get(ref("u"))
    await records.write_request(gateway.store, job("old", source_sha256=stored.sha256, request=REQUEST))
    await gateway.service._sweeper.sweep()
    while gateway.book.find(ref("old")) is None:
        await asyncio.sleep(0.01)
    await gateway.until("old", State.SUCCEEDED)


async def test_a_job_whose_deletion_ends_after_the_sweep_has_read_it_is_not_marked_again(gateway: Gateway):
    await ended(gateway)
    read = jobs.deleting(await gateway.book.look(JOB))
    await gateway.control.delete(JOB)
    await gateway.service._sweeper._look_at_job(read)
    assert await records.marked(gateway.store) == []


async def test_a_deletion_that_nobody_looks_after_is_finished(gateway: Gateway):
    await ended(gateway)
    await gateway.book.update(JOB, jobs.deleting)
    await gateway.service._sweeper.sweep()
    while await gateway.store.keys(keys.jobs(LOCAL)) + await gateway.store.keys(keys.ACTIVE):
        await asyncio.sleep(0.01)


async def test_one_gateway_sweeps_at_a_time(tmp_path: Path):
    async with started(tmp_path / "store", sweep_s=0.01) as gateway:
        lease = await gateway.leases.acquire(ref("sweep", "gateways"))
        while lease is None:
            await asyncio.sleep(0)
            lease = await gateway.leases.acquire(ref("sweep", "gateways"))
        await gateway.store.put(keys.job(JOB, "request.json"), b'{"deleted": true}')
        make_old(gateway, "owners", 99 * DAY_S)
        await gateway.service._sweeper._sweep_alone()
        assert await records.marked(gateway.store) == []
        await gateway.leases.release(lease)
        while await gateway.store.keys("owners/"):
            await asyncio.sleep(0.01)


# ---- leases ----


async def test_the_leases_of_jobs_that_are_gone_go_and_those_of_others_stay(gateway: Gateway, tmp_path: Path):
    await ended(gateway)
    await upload(gateway, tmp_path, owner="somebody")
    await gateway.control.create(ref("of-both", "somebody"), REQUEST)
    for left in ("gone", "of-both"):
        lease = await taken(gateway.leases, ref(left))
        await gateway.leases.release(lease)
    await gateway.service._sweeper.sweep()
    assert await leased(gateway.leases) == [JOB, ref("of-both", "somebody")]


async def test_a_place_that_a_server_tells_of_after_its_last_object_went_is_nothing(
    gateway: Gateway, caplog: pytest.LogCaptureFixture
):
    caplog.set_level(logging.INFO)
    for place in ("jobs", "uploads", "segments"):
        (gateway.store._root / "owners/local" / place / "gone").mkdir(parents=True)
    await gateway.leases.release(await taken(gateway.leases, ref("gone")))
    keep(gateway, leftover_s=0.0)
    await gateway.service._sweeper.sweep()
    removed = [vars(each)["kind"] for each in caplog.records if each.message == "removed what nobody needs any more"]
    assert removed == ["lease"]


async def test_the_lease_of_a_job_that_is_just_being_created_or_can_not_be_read_stays(gateway: Gateway):
    await records.mark(gateway.store, ref("marked"))
    await gateway.store.put(keys.job(ref("later"), "request.json"), b'{"schema_version": 99}')
    for name in ("marked", "later"):
        await gateway.leases.release(await taken(gateway.leases, ref(name)))
    await gateway.service._sweeper.sweep()
    assert await leased(gateway.leases) == [ref("later"), ref("marked")]


async def test_a_lease_that_somebody_holds_stays_until_it_is_given_back(gateway: Gateway):
    lease = await taken(gateway.leases, ref("gone"))
    await gateway.service._sweeper.sweep()
    assert await leased(gateway.leases) == [ref("gone")]
    await gateway.leases.release(lease)
    await gateway.service._sweeper.sweep()
    assert await leased(gateway.leases) == []


async def test_the_lease_of_a_job_that_is_created_in_the_moment_of_the_sweep_stays(gateway: Gateway):
    leases = CreatesMeanwhile(gateway)
    await gateway.leases.release(await taken(gateway.leases, JOB))
    await sweeper(gateway, leases).sweep()
    assert leases.created
    assert await leased(gateway.leases) == [JOB]
    await gateway.until("a", State.SUCCEEDED)


async def test_who_removed_a_job_while_the_cluster_was_away_leaves_its_lease_for_the_sweep(gateway: Gateway, cluster: Cluster):
    fake = cluster.faked()
    async with cluster_gateway(cluster) as leases:
        lease = await taken(leases, ref("gone"))
        fake.go_away()
        await leases.release(lease, forget=True)
        with pytest.raises(ClusterUnavailable):
            await sweeper(gateway, leases).sweep()
        fake.come_back()
        async with asyncio.timeout(20):
            while await leased(leases):
                await sweeper(gateway, leases).sweep()
                await leases.freed(0.1)


async def test_who_was_killed_while_it_removed_a_job_leaves_its_lease_for_the_sweep(gateway: Gateway, cluster: Cluster):
    await ended(gateway)
    async with cluster_gateway(cluster) as killed, cluster_gateway(cluster) as other:
        for job_ref in (JOB, ref("gone")):
            await taken(killed, job_ref)
        await sweeper(gateway, other).sweep()
        assert await leased(other) == [JOB, ref("gone")], "it lives"
        die(killed)
        async with asyncio.timeout(20):
            while ref("gone") in await leased(other):
                await sweeper(gateway, other).sweep()
                await other.freed(0.1)
        assert await leased(other) == [JOB]


async def leased(leases: Leases) -> list[Ref]:
    """Jobs that have a lease."""
    return [each for each in await leases.jobs() if each.owner != "gateways"]


class CreatesMeanwhile(FileLeases):
    """Leases that are slow enough for a job to be created before one is had."""

    def __init__(self, gateway: Gateway) -> None:
        super().__init__(gateway.leases._directory)
        self._gateway = gateway
        self.created = False

    async def acquire(self, ref: Ref) -> FileLease | None:
        self.created = True
        await self._gateway.control.create(ref, REQUEST)
        return await super().acquire(ref)


def sweeper(gateway: Gateway, leases: Leases) -> Sweeper:
    """One that has other leases than its gateway."""
    settings = SweepSettings(sweep_s=3600.0, keep_jobs_s=0.0, keep_uploads_s=0.0, keep_unfinished_s=0.0)
    return Sweeper(
        store=gateway.store, control=gateway.control, uploads=uploads(gateway), leases=leases, settings=settings,
        metrics=GatewayMetrics(CollectorRegistry()),
    )  # fmt: skip


async def test_files_of_processes_that_were_killed_go(tmp_path: Path):
    dead, living = (LocalStore(tmp_path / "store", min_free_bytes=0) for _ in range(2))
    left = dead._drafts.path()
    left.write_bytes(b"half")
    await living.tidy()
    assert left.exists()
    # A process that is killed closes its files, and removes none.
    dead._drafts._lock.close()
    await living.tidy()
    assert not left.parent.exists()
    living.close()


async def _pieces(data: bytes) -> AsyncIterator[bytes]:
    yield data
