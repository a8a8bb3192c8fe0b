from services.gateway import keys
from services.gateway.keys import Ref


def test_what_two_owners_call_the_same_has_different_keys():
    mine, theirs = Ref("local", "a"), Ref("b", "a")
    assert keys.job(mine, "plan.json") == "owners/local/jobs/a/plan.json"
    assert keys.job(theirs, "plan.json") == "owners/b/jobs/a/plan.json"
    assert keys.upload(mine, "data") != keys.upload(theirs, "data")
    assert keys.segment("local", "k", "s.mp4") != keys.segment("b", "k", "s.mp4")


def test_jobs_are_found_among_all_keys_by_an_object_that_they_have():
    mine, theirs = Ref("local", "a"), Ref("b", "jobs")
    found = [keys.job(mine, "request.json"), keys.job(mine, "plan.json"), keys.job(theirs, "request.json")]
    found += [keys.upload(mine, "request.json"), keys.segment("b", "jobs", "request.json"), "owners/x"]
    assert keys.jobs_with(found, "request.json") == [mine, theirs]
    assert keys.jobs_with(found, "plan.json") == [mine]
    assert keys.jobs_with(found, "deleted.json") == []
