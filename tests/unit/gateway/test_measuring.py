import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

from prometheus_client import CollectorRegistry

from services.common.metrics import GatewayMetrics
from services.gateway.book import JobBook
from services.gateway.dispatch import Asking, Dispatcher, Patience
from services.gateway.jobs import State
from services.gateway.measuring import Homes, Measuring, oldest_age_s
from services.gateway.store.local import LocalStore
from tests.unit.gateway.examples import MODEL, job, view
from tests.unit.gateway.test_dispatch import WORK, Listed


def test_work_counts_in_the_pool_that_it_names_or_in_the_first_that_could_restore_it():
    views = [view("a", pool="q"), view("b", pool="p", lost=True), view("c", pool="b", fingerprint="f2")]
    homes = Homes([*views, view("d", pool="a", models=())])
    assert homes.of_work(replace(WORK, pool="z")) == "z"
    assert homes.of_work(WORK) == "p", "b has its model, and would give other pixels"
    assert homes.of_work(replace(WORK, fingerprint="f2")) == "b"
    assert homes.of_work(replace(WORK, fingerprint="f3")) == "b", "nobody could restore it now"
    assert homes.of_work(replace(WORK, model="other")) == ""


def test_a_job_that_is_not_planned_yet_counts_where_its_model_and_its_encoder_are():
    homes = Homes([view("a", pool="p"), view("b", pool="q", encoders=("h264_nvenc",))])
    assert homes.of_asking(Asking(model="nano", pool="z")) == "z"
    assert homes.of_asking(Asking(model="nano")) == "p"
    assert homes.of_asking(Asking(model="nano", encoder="nvenc")) == "q"
    assert homes.of_asking(Asking(model="other")) == ""


def test_work_that_fits_the_large_workers_alone_counts_in_their_pool():
    small = replace(MODEL, max_output_pixels=640 * 360)
    homes = Homes([view("a", pool="a", models=(small,)), view("b", pool="b")])
    assert homes.of_work(replace(WORK, width=640, height=360)) == "a"
    assert homes.of_work(replace(WORK, width=1280, height=720)) == "b"


def test_the_oldest_job_is_the_one_that_was_asked_for_first():
    jobs = [job("a", created_at=10.0), job("b", created_at=5.0, asked_at=30.0), job("c", created_at=1.0, state=State.FAILED)]
    assert oldest_age_s(jobs, 40.0) == 30
    assert oldest_age_s([], 40.0) == 0


async def test_queue_and_workers_are_shown_and_an_idle_pool_says_so(tmp_path: Path):
    registry = CollectorRegistry()
    workers = Listed(view("w:1", state="busy", free_slots=0), view("w:2", pool="q"))
    dispatcher = Dispatcher(workers, Patience(worker_wait_s=30, fingerprint_wait_s=30))
    with contextlib.closing(LocalStore(tmp_path, min_free_bytes=0)) as store:
        book = JobBook(store)
        await book.create(job("a"))
    measuring = Measuring(book=book, workers=workers, dispatcher=dispatcher, metrics=GatewayMetrics(registry))
    asking = asyncio.create_task(dispatcher.offer(Asking(model="other", megapixels=5.0), lambda: None))

    async def hold() -> None:
        async with dispatcher.worker_for(WORK, lambda: None):
            await asyncio.sleep(60)

    holding = [asyncio.create_task(hold()) for _ in range(3)]
    await asyncio.sleep(0.05)
    measuring.once()
    values = {
        (s.name, *s.labels.values()): s.value
        for family in registry.collect()
        for s in family.samples
        if not s.name.endswith("_created")
    }
    assert values["seedvr2_jobs", "PENDING"] == 1
    assert values["seedvr2_oldest_job_age_seconds",] > 0
    assert values["seedvr2_workers", "ready"] == values["seedvr2_workers", "busy"] == 1
    assert values["seedvr2_spans_dispatched",] == 1
    assert (values["seedvr2_queued_megapixels", "p"], values["seedvr2_queued_megapixels", "q"]) == (6.0, 0.0)
    assert values["seedvr2_queued_megapixels", ""] == 5.0, "nobody knows its model"
    assert (values["seedvr2_queued_jobs", "p"], values["seedvr2_queued_jobs", "q"], values["seedvr2_queued_jobs", ""]) == (
        1,
        0,
        1,
    )
    for task in (asking, *holding):
        task.cancel()
    await asyncio.gather(asking, *holding, return_exceptions=True)
