import random
from collections import Counter
from dataclasses import replace

import pytest

from services.common.fleet import WorkerModel
from services.gateway.keys import Ref
from services.gateway.scheduler import AVOID_S, Assignment, Candidate, Work, assign, avoiding, can_restore
from tests.unit.gateway.examples import MODEL


def work(job_id: str = "a", span: int = 0, owner: str = "local", **changes) -> Work:
    fixed = {"model": "m", "model_hash": "h", "fingerprint": "f", "width": 1600, "height": 1000, "megapixels": 1.0}
    return Work(**{"job": Ref(owner, job_id), "span": span, **fixed, **changes})


def served(name: str = "m", model_hash: str = "h", max_pixels: int = 0) -> WorkerModel:
    return replace(MODEL, name=name, hash=model_hash, max_output_pixels=max_pixels)


def worker(address: str = "w", **changes) -> Candidate:
    return Candidate(**{"address": address, "pool": "p", "fingerprint": "f", "models": (served(),), "ready": True, **changes})


def addresses(found: list[Assignment]) -> list[tuple[str, int, str]]:
    return [(a.work.job.id, a.work.span, a.address) for a in found]


def test_a_span_goes_to_a_worker():
    assert addresses(assign([work()], [], [worker()])) == [("a", 0, "w")]


@pytest.mark.parametrize(
    "unfit",
    [
        worker(ready=False),
        worker(fingerprint="other"),
        worker(models=(served("m", "other"),)),
        worker(models=(served("other"),)),
        worker(foreign=1),
    ],
)
def test_a_span_waits_where_no_worker_fits(unfit: Candidate):
    assert assign([work()], [], [unfit]) == []


def test_a_pool_that_was_asked_for_is_kept_to():
    assert not can_restore(work(pool="q"), worker())
    assert addresses(assign([work(pool="q")], [], [worker("w1"), worker("w2", pool="q")])) == [("a", 0, "w2")]


def test_a_span_goes_where_its_encoder_opens():
    plain, able = worker("w1"), worker("w2", encoders=("h264_nvenc",))
    assert addresses(assign([work(encoder="h264_nvenc")], [], [plain, able])) == [("a", 0, "w2")]
    assert assign([work(encoder="hevc_nvenc")], [], [plain, able]) == []
    assert can_restore(work(), plain)
    assert can_restore(work(encoder="png"), plain)


def test_a_span_goes_where_its_frames_fit():
    small, large = worker("w1", models=(served(max_pixels=10**6),)), worker("w2", models=(served(max_pixels=9 * 10**6),))
    assert addresses(assign([work()], [], [small, large])) == [("a", 0, "w2")]
    assert can_restore(work(), worker("w3"))
    assert not can_restore(work(), small)


def test_frames_count_as_the_model_takes_them():
    exact = worker(models=(served(max_pixels=1000 * 1000),))
    assert can_restore(work(width=1000, height=1000), exact)
    assert not can_restore(work(width=1000, height=994), worker(models=(served(max_pixels=1000 * 999),)))


def test_the_least_loaded_worker_is_taken():
    running = [Assignment(work=work("b"), address="w1")]
    found = assign([work()], running, [worker("w1", slots=3), worker("w2", slots=3, foreign=0)])
    assert addresses(found) == [("a", 0, "w2")]


def test_a_preview_goes_before_older_batch_work():
    waiting = [work("old", order=(1, "old")), work("new", order=(2, "new"), preview=True)]
    running = [Assignment(work=work("x", preview=True), address="w1")]
    assert addresses(assign(waiting, running, [worker("w1"), worker("w2")]))[0] == ("new", 0, "w2")


def test_a_preview_joins_a_worker_that_has_a_batch_span_but_only_one_does():
    running = [Assignment(work=work("x"), address="w")]
    waiting = [work("p1", preview=True, order=(1, "p1")), work("p2", preview=True, order=(2, "p2")), work("b")]
    assert addresses(assign(waiting, running, [worker(foreign=1)])) == [("p1", 0, "w")]


def test_owners_and_then_jobs_share_the_workers_evenly():
    waiting = [work("a", i, order=(1, "a")) for i in range(9)] + [work("b", i, order=(2, "b"), owner="other") for i in range(9)]
    waiting += [work("c", i, order=(3, "c")) for i in range(9)]
    found = assign(waiting, [], [worker(str(i)) for i in range(8)])
    assert Counter(a.work.job.id for a in found) == {"a": 2, "b": 4, "c": 2}


def test_equal_ids_of_two_owners_are_two_jobs():
    running = [Assignment(work=work("a", i), address=str(i)) for i in range(2)]
    waiting = [work("a", 2, order=(1, "a")), work("b", order=(2, "b")), work("a", owner="other", order=(3, "a"))]
    found = assign(waiting, running, [worker(str(i)) for i in range(4)])
    assert [a.work.job for a in found] == [Ref("other", "a"), Ref("local", "b")]


def test_a_worker_that_failed_a_span_gets_it_again_only_where_there_is_no_other():
    again = avoiding(work(), "w1")
    assert addresses(assign([again], [], [worker("w1"), worker("w2")])) == [("a", 0, "w2")]
    assert addresses(assign([again], [], [worker("w1")])) == [("a", 0, "w1")]


def test_a_span_waits_for_another_worker_that_is_only_busy_but_not_for_ever():
    busy = [Assignment(work=work("x"), address="w2")]
    again = replace(avoiding(work(), "w1"), since=100)
    assert assign([again], busy, [worker("w1"), worker("w2")], now=100) == []
    assert addresses(assign([again], busy, [worker("w1"), worker("w2")], now=100 + AVOID_S)) == [("a", 0, "w1")]


def test_the_owner_that_got_less_of_late_comes_first():
    waiting = [work("a", order=(1, "a"), owner="x"), work("b", order=(2, "b"), owner="y")]
    assert addresses(assign(waiting, [], [worker()], recent={"x": 100.0, "y": 10.0})) == [("b", 0, "w")]
    assert addresses(assign(waiting, [], [worker()], recent={"x": 100.0, "y": 99.0})) == [("a", 0, "w")], "nearly the same"


def test_of_equal_workers_the_tightest_then_the_fastest_is_taken():
    tight, wide = worker("w9", models=(served(max_pixels=2 * 10**6),)), worker("w1")
    assert addresses(assign([work()], [], [wide, tight])) == [("a", 0, "w9")]
    fast = worker("w9", megapixels_per_second=2.0)
    assert addresses(assign([work()], [], [worker("w1"), fast])) == [("a", 0, "w9")]


def test_gateways_begin_with_different_workers():
    found = {assign([work()], [], [worker(str(i)) for i in range(8)], salt=salt)[0].address for salt in range(50)}
    assert len(found) > 4


@pytest.mark.parametrize("seed", range(20))
def test_in_a_long_run_no_rule_is_ever_broken_and_everything_ends(seed: int):
    dice = random.Random(seed)
    workers = [
        worker(str(i), slots=dice.randint(1, 2), pool=dice.choice("pq"), fingerprint=dice.choice("fg"))
        for i in range(dice.randint(2, 6))
    ]
    workers += [worker("f", fingerprint="f"), worker("g", fingerprint="g"), worker("q", pool="q", fingerprint="g")]
    waiting = [
        work(f"j{j}", i, order=(j, f"j{j}"), preview=dice.random() < 0.2, owner=dice.choice("xy"), fingerprint=dice.choice("fg"))
        for j in range(8)
        for i in range(dice.randint(1, 6))
    ]
    running: list[Assignment] = []
    for _ in range(500):
        up = [replace(w, ready=dice.random() < 0.8) for w in workers]
        for found in assign(waiting, running, up):
            assert can_restore(found.work, next(w for w in up if w.address == found.address))
            waiting.remove(found.work)
            running.append(found)
        for w in workers:
            mine = [a.work.preview for a in running if a.address == w.address]
            assert mine.count(True) <= w.slots
            assert mine.count(False) <= w.slots
        running = [a for a in running if dice.random() < 0.6]
        if not waiting and not running:
            return
    pytest.fail("work was left")
