from services.gateway import keys
from services.gateway.keys import Ref
from services.gateway.store.base import check_key


def test_what_two_owners_call_the_same_has_different_keys():
    mine, theirs = Ref("local", "a"), Ref("b", "a")
    assert keys.job(mine, "plan.json") == "owners/local/jobs/a/plan.json"
    assert keys.job(theirs, "plan.json") == "owners/b/jobs/a/plan.json"
    assert keys.upload(mine, "data") != keys.upload(theirs, "data")
    assert keys.segment("local", "k", "s.mp4") != keys.segment("b", "k", "s.mp4")


def test_marks_tell_the_jobs_that_they_belong_to():
    marked = [Ref("local", "a"), Ref("b", "a")]
    assert keys.marked([*map(keys.active, marked), "active/stray"]) == marked


def test_a_pool_has_a_key_whatever_its_name():
    assert keys.pool("7b-8gpu") == "gateways/pools/7b-8gpu.json"
    others = ["", "../x", "A", ".", "a/b", "p" * 300]
    assert len({keys.pool(name) for name in others}) == len(others)
    for name in ("p", *others):
        check_key(keys.pool(name))
