from services.gateway import keys
from services.gateway.keys import Ref


def test_what_two_owners_call_the_same_has_different_keys():
    mine, theirs = Ref("local", "a"), Ref("b", "a")
    assert keys.job(mine, "plan.json") == "owners/local/jobs/a/plan.json"
    assert keys.job(theirs, "plan.json") == "owners/b/jobs/a/plan.json"
    assert keys.upload(mine, "data") != keys.upload(theirs, "data")
    assert keys.segment("local", "k", "s.mp4") != keys.segment("b", "k", "s.mp4")


def test_marks_tell_the_jobs_that_they_belong_to():
    marked = [Ref("local", "a"), Ref("b", "a")]
    assert keys.marked([*map(keys.active, marked), "active/stray"]) == marked
