import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest

from services.common.errors import FingerprintChanged, WorkerUnavailable
from services.gateway.dispatch import Asking, Dispatcher, Patience, best_offer, candidate_of
from services.gateway.keys import Ref
from services.gateway.ports import WorkerView
from services.gateway.scheduler import Work
from tests.unit.gateway.examples import MODEL, ref, view

WORK = Work(job=ref("a"), span=0, model="nano", model_hash=MODEL.hash, fingerprint="f1", megapixels=3.0)
PATIENT = Patience(worker_wait_s=30, fingerprint_wait_s=30)


class Listed:
    """Workers as a list that tests change."""

    def __init__(self, *views: WorkerView) -> None:
        self._views = list(views)
        self._listeners: list[Callable[[], None]] = []

    def views(self) -> list[WorkerView]:
        return self._views

    def on_change(self, listener: Callable[[], None]) -> None:
        self._listeners.append(listener)

    def become(self, *views: WorkerView) -> None:
        self._views = list(views)
        for listener in self._listeners:
            listener()


async def test_a_span_that_waits_gets_the_worker_that_appears():
    workers = Listed()
    dispatcher = Dispatcher(workers, PATIENT)

    async def hold() -> str:
        async with dispatcher.worker_for(WORK, lambda: None) as address:
            return address

    waiting = asyncio.create_task(hold())
    await asyncio.sleep(0)
    assert [work.megapixels for work in dispatcher.waiting()] == [3.0]
    workers.become(view("w:1"))
    assert await waiting == "w:1"
    assert (dispatcher.running, dispatcher.waiting()) == (0, [])


async def test_the_next_span_gets_the_worker_that_is_given_back():
    dispatcher = Dispatcher(Listed(view("w:1")), PATIENT)
    async with AsyncExitStack() as held:
        await held.enter_async_context(dispatcher.worker_for(WORK, lambda: None))
        second = asyncio.create_task(held.enter_async_context(dispatcher.worker_for(replace(WORK, span=1), lambda: None)))
        await asyncio.sleep(0.05)
        assert not second.done()
        await held.pop_all().aclose()
        assert await second == "w:1"


async def test_a_span_that_is_cancelled_while_it_waits_leaves_the_queue():
    workers = Listed()
    dispatcher = Dispatcher(workers, PATIENT)
    waiting = asyncio.create_task(dispatcher.worker_for(WORK, lambda: None).__aenter__())
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert dispatcher.waiting() == []


async def test_patience_with_absent_workers_ends():
    dispatcher = Dispatcher(Listed(view(lost=True)), Patience(worker_wait_s=0, fingerprint_wait_s=30))
    waits: list[int] = []
    with pytest.raises(WorkerUnavailable, match="No worker that serves nano"):
        async with dispatcher.worker_for(WORK, lambda: waits.append(1)):
            pytest.fail("there is no worker")
    assert waits


async def test_patience_with_another_fingerprint_ends():
    dispatcher = Dispatcher(Listed(view(fingerprint="f2")), Patience(worker_wait_s=30, fingerprint_wait_s=0))
    with pytest.raises(FingerprintChanged, match="retry the job"):
        async with dispatcher.worker_for(WORK, lambda: None):
            pytest.fail("there is no such worker")


async def test_an_offer_is_waited_for():
    workers = Listed()
    dispatcher = Dispatcher(workers, PATIENT)
    offer = asyncio.create_task(dispatcher.offer(Asking(model="nano"), lambda: workers.become(view(megapixels_per_second=2.0))))
    assert (await offer).megapixels_per_second == 2.0


async def test_no_offer_comes_after_the_wait():
    with pytest.raises(WorkerUnavailable, match="in the pool q"):
        hurried = Dispatcher(Listed(view()), Patience(worker_wait_s=0, fingerprint_wait_s=0))
        await hurried.offer(Asking(model="nano", pool="q"), lambda: None)


async def test_an_offer_of_workers_that_have_an_encoder_is_waited_for():
    workers = Listed(view("a"))
    dispatcher = Dispatcher(workers, PATIENT)
    able = view("b", encoders=("h264_nvenc",))
    offer = asyncio.create_task(dispatcher.offer(Asking(model="nano", encoder="nvenc"), lambda: workers.become(view("a"), able)))
    assert ((await offer).encoders, (await offer).workers) == (("h264_nvenc",), 1)
    hurried = Dispatcher(Listed(view("a")), Patience(worker_wait_s=0, fingerprint_wait_s=0))
    with pytest.raises(WorkerUnavailable, match="serves nano and has NVENC"):
        await hurried.offer(Asking(model="nano", encoder="nvenc"), lambda: None)


async def test_a_span_whose_encoder_left_waits_for_a_worker_that_has_it():
    dispatcher = Dispatcher(Listed(view("a")), Patience(worker_wait_s=0, fingerprint_wait_s=0))
    with pytest.raises(WorkerUnavailable, match="and has NVENC"):
        async with dispatcher.worker_for(replace(WORK, encoder="hevc_nvenc"), lambda: None):
            pass


def test_the_offer_is_that_of_most_workers():
    views = [view("a", fingerprint="f2"), view("b", megapixels_per_second=1.0), view("c", megapixels_per_second=3.0)]
    offer = best_offer(views, "nano", "")
    assert offer is not None
    assert (offer.fingerprint, offer.workers, offer.megapixels_per_second) == ("f1", 2, 2.0)
    assert best_offer(views, "other", "") is None
    assert best_offer([view(lost=True)], "nano", "") is None
    assert best_offer([view(lost=True)], "nano", "", absent=True) is not None


def test_slots_that_somebody_else_holds_are_seen():
    assert candidate_of(view(slots=2, free_slots=0), held=1).foreign == 1
    assert candidate_of(view(slots=1, free_slots=1), held=1).foreign == 0
    assert not candidate_of(view(state="draining")).ready
    assert candidate_of(view(state="busy")).ready


async def test_owners_that_got_less_of_late_come_first():
    dispatcher = Dispatcher(Listed(view("w:1")), PATIENT)
    dispatcher.charge(WORK, 100.0)
    other, order = replace(WORK, job=Ref("other", "b"), order=(9.0, "b")), list[str]()

    async def hold(work: Work) -> None:
        async with dispatcher.worker_for(work, lambda: None):
            order.append(work.job.owner)

    async with dispatcher.worker_for(WORK, lambda: None):
        waiting = [asyncio.create_task(hold(work)) for work in (replace(WORK, span=1), other)]
        await asyncio.sleep(0.05)
    await asyncio.gather(*waiting)
    assert order == ["other", "local"]


async def test_a_worker_that_still_says_it_has_our_span_or_our_preview_is_not_used_by_others():
    workers = Listed(view("w:1"))
    dispatcher = Dispatcher(workers, PATIENT, poll_s=5)
    for work in (WORK, replace(WORK, preview=True)):
        async with dispatcher.worker_for(work, lambda: None):
            workers.become(view("w:1", state="busy", free_slots=0))
        assert dispatcher._courtesy.left_alone(0.0) == frozenset()
        workers.become(view("w:1"))


async def test_a_worker_that_others_use_too_is_left_to_them_for_a_moment():
    dispatcher = Dispatcher(Listed(view("w:1")), PATIENT, poll_s=0.2)
    dispatcher.note_refusal()
    async with dispatcher.worker_for(WORK, lambda: None):
        pass
    assert dispatcher._courtesy.left_alone(0.0) == {"w:1"}
    async with dispatcher.worker_for(WORK, lambda: None) as address:
        assert address == "w:1"


async def test_thousands_of_spans_may_wait():
    workers = Listed(*(view(f"w:{i}") for i in range(50)))
    dispatcher, done = Dispatcher(workers, PATIENT), list[str]()

    async def restore(span: int) -> None:
        async with dispatcher.worker_for(replace(WORK, span=span), lambda: None) as address:
            await asyncio.sleep(0)
            done.append(address)

    async with asyncio.timeout(60):
        await asyncio.gather(*(restore(span) for span in range(3000)))
    assert len(done) == 3000
    assert len(set(done)) == 50
