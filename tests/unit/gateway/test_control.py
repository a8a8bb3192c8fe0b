"""Jobs from outside, over a real store and real files; the workers are in this process."""

import asyncio
from collections.abc import AsyncIterable, AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import QueueFull, UploadNotFound, WorkerBroken
from services.common.media import Packet, SpanTask
from services.common.metrics import GatewayMetrics
from services.gateway.container.adapter import Container
from services.gateway.job_request import JobRequest
from services.gateway.jobs import State
from services.gateway.keys import LOCAL, Ref
from services.gateway.leases.files import FileLease, FileLeases
from services.gateway.ports import OnSegment, OnStage, SpanOutcome, WorkerView
from services.gateway.service import GatewayService, container_limits
from services.gateway.settings import GatewaySettings
from services.gateway.store.local import LocalStore
from services.gateway.uploads import Finish
from tests.clips import make
from tests.integration.echo_worker import encoded, matched
from tests.unit.gateway.examples import ref, view

REQUEST = JobRequest(upload_id="u", scale=1.0)


class InProcess:
    """One worker; ``go`` holds its spans back, ``lost`` makes it break them."""

    def __init__(self) -> None:
        self.go = asyncio.Event()
        self.go.set()
        self.lost = False
        self.spans = 0
        self.speed = 0.0

    def views(self) -> list[WorkerView]:
        return [view("w:1", megapixels_per_second=self.speed)]

    def on_change(self, listener: Callable[[], None]) -> None:
        pass

    def suspect(self, address: str) -> None:
        pass

    async def restore(
        self, address: str, task: SpanTask, packets: AsyncIterable[Packet], on_segment: OnSegment, on_stage: OnStage
    ) -> SpanOutcome:
        self.spans += 1
        frames = matched(task, [packet async for packet in packets])
        for segment in task.segments:
            if segment.first not in task.stored:
                await on_segment(segment, encoded(task, segment, frames))
            await self.go.wait()
        if self.lost:
            raise WorkerBroken("It was lost after its last segment.")
        return SpanOutcome(frames=len(frames), concealed_frames=2)


class LosableLeases(FileLeases):
    """Leases that tests can take away."""

    def __init__(self, directory: Path) -> None:
        super().__init__(directory)
        self.given: list[FileLease] = []

    async def acquire(self, ref: Ref) -> FileLease | None:
        lease = await super().acquire(ref)
        self.given += [lease] if lease else []
        return lease


class Gateway:
    """A gateway in this process."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        values = GatewaySettings(**{"segment_frames": 8, "adopt_s": 0.05, **settings})
        self.store = LocalStore(directory, min_free_bytes=0)
        self.leases = LosableLeases(directory / ".leases")
        self.workers = InProcess()
        self.service = GatewayService(
            settings=values, store=self.store, workers=self.workers, container=Container(container_limits(values)),
            leases=self.leases, metrics=GatewayMetrics(CollectorRegistry()),
        )  # fmt: skip
        self.control = self.service._control
        self.book = self.service._book

    async def until(self, job_id: str, state: State, owner: str = LOCAL) -> None:
        async for job, _ in self.book.watch(Ref(owner, job_id)):
            if job.state is state:
                return
        pytest.fail(f"{self.book.get(Ref(owner, job_id))}")


@asynccontextmanager
async def started(directory: Path, **settings: Any) -> AsyncIterator[Gateway]:
    gateway = Gateway(directory, **settings)
    await gateway.service.load()
    await gateway.service.start()
    try:
        yield gateway
    finally:
        await gateway.service.stop()
        gateway.store.close()


@pytest.fixture
async def gateway(tmp_path: Path) -> AsyncIterator[Gateway]:
    async with started(tmp_path / "store") as gateway:
        await upload(gateway, tmp_path)
        yield gateway


async def upload(gateway: Gateway, directory: Path, frames: int = 24, owner: str = LOCAL) -> None:
    data = make.video(directory / "a.mp4", frames=frames).read_bytes()

    async def messages() -> AsyncIterator[bytes | Finish]:
        yield data
        yield Finish(sha256="")

    uploads = gateway.service.servicer._uploads
    await uploads.create(Ref(owner, "u"), "a.mp4", 0)
    await uploads.write(Ref(owner, "u"), 0, messages())


async def test_a_job_succeeds_and_says_which_frames_were_concealed(gateway: Gateway):
    await gateway.control.create(ref("a"), REQUEST)
    await gateway.until("a", State.SUCCEEDED)
    assert gateway.book.get(ref("a")).notes == ("2 frames from 0 to 24 could not be decoded; neighbours stand in.",)
    assert gateway.workers.spans == 1


async def test_a_worker_that_is_lost_after_its_last_segment_has_done_its_work(gateway: Gateway):
    gateway.workers.lost = True
    await gateway.control.create(ref("a"), REQUEST)
    await gateway.until("a", State.SUCCEEDED)
    assert (gateway.workers.spans, gateway.book.get(ref("a")).notes) == (1, ())


async def test_two_equal_jobs_at_once_are_one(gateway: Gateway):
    jobs = await asyncio.gather(*(gateway.control.create(ref("a"), REQUEST) for _ in range(5)))
    assert len({job.created_at for job in jobs}) == 1
    await gateway.until("a", State.SUCCEEDED)
    assert gateway.workers.spans == 1


async def test_a_creation_that_nobody_waits_for_any_more_still_counts(gateway: Gateway):
    await gateway.control.plan(LOCAL, REQUEST)
    creating = asyncio.create_task(gateway.control.create(ref("a"), REQUEST))
    while gateway.book.find(ref("a")) is None and not await gateway.store.keys("owners/local/jobs/a/"):
        await asyncio.sleep(0)
    creating.cancel()
    await asyncio.wait({creating})
    while gateway.book.find(ref("a")) is None:
        await asyncio.sleep(0)
    await gateway.until("a", State.SUCCEEDED)


async def test_a_source_whose_index_takes_long_is_indexed_by_its_job(tmp_path: Path):
    async with started(tmp_path / "store", index_s=0) as gateway:
        await upload(gateway, tmp_path)
        # What could not be seen at creation ends the job with the reason.
        await gateway.control.create(ref("b"), JobRequest(upload_id="u", frames=(90, 99)))
        await gateway.until("b", State.FAILED)
        failure = gateway.book.get(ref("b")).failure
        assert failure is not None
        assert failure.reason == "InvalidOption"
        await gateway.control.create(ref("a"), REQUEST)
        await gateway.until("a", State.SUCCEEDED)


async def test_more_jobs_than_allowed_are_refused_until_some_have_ended(tmp_path: Path):
    async with started(tmp_path / "store", max_active_jobs=1) as gateway:
        await upload(gateway, tmp_path)
        gateway.workers.go.clear()
        await gateway.control.create(ref("a"), REQUEST)
        with pytest.raises(QueueFull, match="try again when some have ended") as error:
            await gateway.control.create(ref("b"), REQUEST)
        assert error.value.retry_after_s == 30
        gateway.workers.go.set()
        await gateway.until("a", State.SUCCEEDED)
        await gateway.control.create(ref("b"), REQUEST)
        await gateway.until("b", State.SUCCEEDED)


async def test_jobs_that_come_at_the_same_time_are_counted_too(tmp_path: Path):
    async with started(tmp_path / "store", max_active_jobs=3) as gateway:
        await upload(gateway, tmp_path)
        gateway.workers.go.clear()
        names = [f"j{number}" for number in range(8)]
        creating = [gateway.control.create(ref(name), REQUEST) for name in names]
        answers = await asyncio.gather(*creating, return_exceptions=True)
        assert [isinstance(answer, QueueFull) for answer in answers].count(True) == 5
        assert len(gateway.book.active()) == 3
        gateway.workers.go.set()
        for job in gateway.book.active():
            await gateway.until(job.job_id, State.SUCCEEDED)


async def test_more_jobs_of_one_owner_than_allowed_are_refused_and_others_are_taken(tmp_path: Path):
    async with started(tmp_path / "store", max_owner_jobs=1) as gateway:
        await upload(gateway, tmp_path)
        await upload(gateway, tmp_path, owner="other")
        gateway.workers.go.clear()
        await gateway.control.create(ref("a"), REQUEST)
        with pytest.raises(QueueFull, match="1 jobs of yours"):
            await gateway.control.create(ref("b"), REQUEST)
        await gateway.control.create(Ref("other", "b"), REQUEST)
        gateway.workers.go.set()
        await gateway.until("a", State.SUCCEEDED)


async def test_a_plan_says_how_long_other_work_takes_before(tmp_path: Path):
    async with started(tmp_path / "store") as gateway:
        await upload(gateway, tmp_path)
        assert (await gateway.control.plan(LOCAL, REQUEST)).predicted_wait_s in (None, 0.0)
        gateway.workers.speed = 0.001
        gateway.workers.go.clear()
        await gateway.control.create(ref("a"), REQUEST)
        await gateway.until("a", State.RESTORING)
        plan = await gateway.control.plan(LOCAL, REQUEST)
        assert plan.predicted_s is not None
        assert plan.predicted_wait_s is not None
        assert 0 < plan.predicted_wait_s <= plan.predicted_s, "the same work, and as far as that is not done yet"
        assert plan.until_done_s == plan.predicted_s + plan.predicted_wait_s
        gateway.workers.go.set()
        await gateway.until("a", State.SUCCEEDED)


async def test_a_job_that_another_gateway_drives_is_taken_up_when_that_one_is_gone(tmp_path: Path):
    async with started(tmp_path / "store") as first:
        await upload(first, tmp_path)
        first.workers.go.clear()
        await first.control.create(ref("a"), REQUEST)
        await first.until("a", State.RESTORING)
        async with started(tmp_path / "store") as second:
            assert second.book.get(ref("a")).state is State.RESTORING
            assert second.workers.spans == 0
            await first.service.stop()
            await second.until("a", State.SUCCEEDED)
        assert second.workers.spans == 1
        assert second.book.get(ref("a")).fence == 2


async def test_a_job_whose_upload_is_gone_can_not_be_retried(gateway: Gateway):
    gateway.workers.go.clear()
    await gateway.control.create(ref("a"), REQUEST)
    await gateway.control.cancel(ref("a"))
    await gateway.service.servicer._uploads.delete(ref("u"))
    with pytest.raises(UploadNotFound):
        await gateway.control.retry(ref("a"))
    assert gateway.book.get(ref("a")).state is State.CANCELLED


async def test_a_cancelled_job_is_not_driven_when_the_call_returns(gateway: Gateway):
    gateway.workers.go.clear()
    await gateway.control.create(ref("a"), REQUEST)
    await gateway.until("a", State.RESTORING)
    await gateway.control.cancel(ref("a"))
    lease = await gateway.leases.acquire(ref("a"))
    assert lease is not None
    await gateway.leases.release(lease)


async def test_shared_segments_go_with_the_last_job_that_needs_them(gateway: Gateway):
    for job_id, request in (("a", REQUEST), ("b", JobRequest(upload_id="u", scale=1.0, labels=(("x", "y"),)))):
        await gateway.control.create(ref(job_id), request)
        await gateway.until(job_id, State.SUCCEEDED)
    assert gateway.workers.spans == 1
    await gateway.control.delete(ref("a"))
    assert len(await gateway.store.keys("owners/local/segments/")) == 3
    await gateway.control.delete(ref("b"))
    assert await gateway.store.keys("owners/local/segments/") == []
    assert await gateway.store.keys("owners/local/jobs/") == []


async def test_two_owners_with_equal_ids_are_fully_apart(gateway: Gateway, tmp_path: Path):
    await upload(gateway, tmp_path, owner="other")
    mine, theirs = ref("a"), ref("a", "other")
    await gateway.control.create(mine, REQUEST)
    await gateway.control.create(theirs, REQUEST)
    await gateway.until("a", State.SUCCEEDED)
    await gateway.until("a", State.SUCCEEDED, "other")
    # Not even equal bytes are shared: who else restored something is nobody's business.
    assert gateway.workers.spans == 2
    await gateway.control.delete(mine)
    await gateway.service.servicer._uploads.delete(ref("u"))
    assert await gateway.store.keys("owners/local/") == []
    assert gateway.book.find(mine) is None
    results = gateway.service.servicer._results
    assert (await results.playlist(theirs)).segments == 3
    assert (await results.source(theirs, 0, 0)).sha256 == gateway.book.get(theirs).source_sha256
    await gateway.control.delete(theirs)
    with pytest.raises(UploadNotFound):
        await gateway.control.create(ref("a", "third"), REQUEST)


async def test_a_job_whose_lease_is_lost_is_left_as_it_is_and_its_worker_is_free(gateway: Gateway):
    gateway.workers.go.clear()
    await gateway.control.create(ref("a"), REQUEST)
    await gateway.until("a", State.RESTORING)
    while not gateway.workers.spans:
        await asyncio.sleep(0.01)
    next(lease for lease in gateway.leases.given if lease.ref == ref("a")).lost.set()
    while gateway.workers.spans < 2:
        await asyncio.sleep(0.01)
    job = gateway.book.get(ref("a"))
    assert (job.state, job.failure, job.fence) == (State.RESTORING, None, 2)
    gateway.workers.go.set()
    await gateway.until("a", State.SUCCEEDED)


async def test_a_creation_whose_caller_goes_away_is_whole_before_the_same_id_is_asked_for_again(gateway: Gateway):
    creating = asyncio.create_task(gateway.control.create(ref("a"), REQUEST))
    while not gateway.control._beginning:
        await asyncio.sleep(0)
    creating.cancel()
    with pytest.raises(asyncio.CancelledError):
        await creating
    assert gateway.book.find(ref("a")) is not None
    assert gateway.control._beginning == {}
