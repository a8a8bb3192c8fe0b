"""The scheduler in simulated time, with everything that happens to a fleet: what holds at every moment, and what in the end."""

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.gateway.scheduler import AVOID_S, assign, can_restore
from services.gateway.tries import MOST_LOST
from tests.unit.gateway.fleet_simulation import Fleet, SimulatedWorker, simulated_work

SMALL_PIXELS = 2_000_000
BIG = {"width": 4000, "height": 2000}


def workers(count: int, **changes: object) -> list[SimulatedWorker]:
    return [SimulatedWorker(f"w{i}", **changes) for i in range(count)]


def job(owner: str, job_id: str, spans: int, **changes: object) -> list[object]:
    return [simulated_work(owner, job_id, i, **changes) for i in range(spans)]


def check_nobody_idles(fleet: Fleet) -> None:
    """Of one gateway: no span waits for what a free worker could do now, unless that worker failed it."""
    (gateway,) = fleet.gateways
    for candidate in (c for c in fleet.candidates(gateway) if c.ready):
        held = [a.assignment.work.preview for a in gateway.running if a.assignment.address == candidate.address]
        free = {True: held.count(True) < candidate.slots, False: held.count(False) + candidate.foreign < candidate.slots}
        for work in gateway.waiting if any(free.values()) else ():
            avoided = candidate.address in work.avoid and fleet.now - work.since < AVOID_S
            assert avoided or not free[work.preview] or not can_restore(work, candidate), (work, candidate)


def test_two_owners_get_the_same_however_much_they_ask_for():
    fleet = Fleet(workers(4))
    fleet.submit(job("greedy", "g1", 400) + job("greedy", "g2", 400))
    fleet.submit(job("modest", "m", 200))
    fleet.run(600, check=lambda: check_nobody_idles(fleet))
    assert fleet.served["greedy"] == pytest.approx(fleet.served["modest"], rel=0.1)


def test_work_is_shared_and_not_the_number_of_spans():
    fleet = Fleet(workers(4))
    fleet.submit(job("small", "s", 800, megapixels=20.0))
    fleet.submit(job("large", "l", 80, megapixels=200.0))
    fleet.run(600)
    assert fleet.served["small"] == pytest.approx(fleet.served["large"], rel=0.1)


def test_who_comes_later_is_served_at_once_and_gets_no_arrears():
    fleet = Fleet(workers(4, speed=1.0))
    fleet.submit(job("first", "f", 500))
    fleet.run(4000)
    fleet.submit(job("second", "s", 400))
    fleet.run(4101)
    assert fleet.waits["s", 0] <= 100
    fleet.run(8000)
    before = dict(fleet.served)
    fleet.run(10_000)
    later = {owner: fleet.served[owner] - before[owner] for owner in before}
    assert later["first"] == pytest.approx(later["second"], rel=0.15), "what was done long ago is forgotten"


def test_owners_that_come_and_go_starve_nobody():
    fleet = Fleet(workers(1))
    fleet.submit(job("old", "old", 30))
    for number in range(360):
        fleet.soon(10 * number, lambda number=number: fleet.submit(job(f"new{number}", f"new{number}", 1)))
    fleet.finish(3600)
    assert fleet.served["old"] >= 3 * 100


def test_large_frames_get_the_few_workers_that_can_take_them():
    small, large = workers(6, max_pixels=SMALL_PIXELS), SimulatedWorker("large")
    fleet = Fleet([*small, large])
    fleet.submit(job("a", "many", 600))
    fleet.run(100)
    fleet.submit(job("b", "big", 20, **BIG))
    fleet.run(100 + 20 * 10 + 60)
    assert all(fleet.done["big", i] for i in range(20))
    assert fleet.waits["big", 0] <= 11


def test_a_worker_that_can_do_more_is_kept_for_what_needs_it():
    fleet = Fleet([SimulatedWorker("large"), *workers(1, max_pixels=SMALL_PIXELS)])
    fleet.submit(job("a", "plain", 1))
    fleet.submit(job("a", "big", 1, **BIG))
    fleet.run(5)
    assert fleet.waits == {("plain", 0): 0, ("big", 0): 0}


def test_the_faster_of_two_equal_workers_is_taken():
    fleet = Fleet([SimulatedWorker("slow", speed=1), SimulatedWorker("fast", speed=50)])
    fleet.submit(job("a", "a", 1))
    fleet.run(3)
    assert fleet.busy_s == {"fast": 2}


def test_previews_begin_at_once_on_a_busy_fleet_and_batch_work_goes_on():
    fleet = Fleet(workers(3))
    fleet.submit(job("a", "film", 300))
    for i in range(60):
        fleet.run(i * 10 + 5)
        fleet.submit(job(f"p{i}", f"preview{i}", 1, preview=True, megapixels=20.0))
    fleet.finish(2000)
    assert max(fleet.waits[f"preview{i}", 0] for i in range(60)) == 0
    assert sum(fleet.done[("film", i)] for i in range(300)) == 300


def test_a_span_that_takes_workers_along_fails_its_job_and_spares_the_rest():
    fleet = Fleet(workers(8), poisonous=frozenset({"bad"}))
    fleet.submit(job("a", "good", 200) + job("b", "bad", 1))
    fleet.run(1500)
    assert len({address for _, address in fleet.killed}) == len(fleet.killed) == MOST_LOST
    assert "took 3 workers along" in fleet.failed["bad"]
    assert sum(fleet.done[("good", i)] for i in range(200)) == 200


@pytest.mark.parametrize("gateways", [2, 4])
def test_gateways_that_see_each_other_only_through_the_workers_share_them_without_a_stampede(gateways: int):
    fleet = Fleet(workers(8), gateways=gateways)
    for number in range(gateways):
        fleet.submit(job(f"o{number}", f"j{number}", 400), gateway=number)
    fleet.run(500)
    assert sum(fleet.busy_s.values()) / (8 * 500) > 0.85
    assert fleet.refused < 0.3 * sum(fleet.done.values())
    assert min(fleet.served.values()) > 0.7 * max(fleet.served.values())


def test_thousands_of_spans_of_many_owners_end_once_each_while_workers_die_come_and_go():
    dice, fleet = random.Random(7), Fleet(workers(12), gateways=3, seed=7)
    asked = set()
    for number in range(60):
        spans, megapixels = dice.randint(1, 120), dice.choice([20.0, 100.0, 300.0])
        works = job(f"o{number % 9}", f"j{number}", spans, megapixels=megapixels, preview=spans < 3)
        asked |= {(work.job.id, work.span) for work in works}
        fleet.submit(works, gateway=dice.randrange(3))
    for _ in range(100):
        fleet.soon(dice.uniform(0, 3000), lambda: fleet.kill(dice.choice([a for a, w in fleet.workers.items() if w.up])))
    for number in range(4):
        fleet.soon(500.0 * number, lambda number=number: fleet.join(SimulatedWorker(f"late{number}", speed=20.0)))
    fleet.finish(50_000)
    assert len(asked) > 2500
    assert (fleet.left, fleet.failed) == (0, {})
    assert fleet.done == dict.fromkeys(asked, 1)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_whatever_comes_no_rule_is_broken_nobody_idles_and_everything_ends(data: st.DataObject):
    kinds = data.draw(
        st.lists(
            st.tuples(st.sampled_from("fg"), st.sampled_from([0, SMALL_PIXELS]), st.sampled_from("pq")), min_size=1, max_size=5
        )
    )
    fleet = Fleet(
        [SimulatedWorker(f"w{i}", fingerprint=f, max_pixels=m, pool=p) for i, (f, m, p) in enumerate(kinds)],
        seed=data.draw(st.integers(0, 1000)),
    )
    wishes = data.draw(
        st.lists(
            st.tuples(st.sampled_from("xyz"), st.integers(1, 8), st.booleans(), st.sampled_from(kinds), st.floats(0, 200)),
            max_size=8,
        )
    )
    for number, (owner, spans, preview, (fingerprint, pixels, pool), when) in enumerate(wishes):
        size = {"width": 1000, "height": 1000} if pixels else BIG
        works = job(owner, f"j{number}", spans, preview=preview, fingerprint=fingerprint, pool=pool, **size)
        fleet.soon(when, lambda works=works: fleet.submit(works))
    for when, which in data.draw(st.lists(st.tuples(st.floats(0, 300), st.integers(0, len(kinds) - 1)), max_size=4)):
        fleet.soon(when, lambda which=which: fleet.kill(f"w{which}"))
    fleet.finish(10_000, check=lambda: check_nobody_idles(fleet))
    assert fleet.left == 0
    asked = {(f"j{n}", i) for n, (_, spans, *_) in enumerate(wishes) for i in range(spans)}
    assert {key for key in asked if key[0] not in fleet.failed} <= set(fleet.done)
    assert set(fleet.done.values()) <= {1}
    assert not fleet.failed


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), st.booleans(), st.floats(0, 100)), max_size=30),
    st.integers(1, 6),
)
def test_a_decision_never_gives_a_slot_twice(wishes: list[tuple[str, str, bool, float]], count: int):
    waiting = [
        simulated_work(owner, job_id, i, preview=preview, megapixels=mp) for i, (owner, job_id, preview, mp) in enumerate(wishes)
    ]
    found = assign(waiting, [], [w.candidate() for w in workers(count)])
    places = [(a.address, a.work.preview) for a in found]
    assert len(places) == len(set(places))
    assert len({(a.work.job, a.work.span) for a in found}) == len(found)
    batch, previews = (sum(w.preview is p for w in waiting) for p in (False, True))
    assert len(found) == min(batch, count) + min(previews, count)
