import re

from services.gateway.keys import Ref
from services.gateway.leases.records import (
    LeaseTimes,
    Names,
    job_of,
    new_job_lease,
    new_presence,
    released,
    renewed,
    taken,
    token_of,
)

NAMES = Names(namespace="video", instance="seedvr2")
TIMES = LeaseTimes(lease_s=9, renew_s=2.0)


def test_names_are_legal_and_tell_owners_jobs_and_installations_apart():
    other = Names(namespace="video", instance="second")
    names = [NAMES.job(Ref("o", "a-b")), NAMES.job(Ref("o-a", "b")), NAMES.job(Ref("o", "c" * 63)), other.job(Ref("o", "a-b"))]
    assert len(set(names)) == len(names)
    for name in [*names, NAMES.presence("host_0123")]:
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
        assert len(name) <= 63


def test_a_gateway_lets_go_before_others_may_take():
    assert TIMES.deadline_s < TIMES.lease_s


def test_times_have_the_digits_that_the_server_wants():
    spec = new_presence(NAMES, "me", TIMES, 0.5)["spec"]
    assert (spec["renewTime"], spec["leaseDurationSeconds"]) == ("1970-01-01T00:00:00.500000Z", 9)
    assert renewed({"metadata": {}, "spec": spec}, 1.0)["spec"]["renewTime"] == "1970-01-01T00:00:01.000000Z"


def test_each_holder_has_a_larger_token_and_nobody_leaves_it_as_it_is():
    first = new_job_lease(NAMES, Ref("o", "a"), "me", 0.0)
    second = taken(released(first), "you", 0.0)
    assert [token_of(record) for record in (first, released(first), second)] == [1, 1, 2]


def test_a_lease_says_whose_it_is():
    lease = new_job_lease(NAMES, Ref("o", "a"), "me", 0.0)
    assert job_of(taken(lease, "you", 0.0)) == Ref("o", "a")
    assert job_of(new_presence(NAMES, "me", TIMES, 0.0)) is None


def test_who_wrote_which_field_is_not_sent_back():
    record = new_job_lease(NAMES, Ref("o", "a"), "me", 0.0)
    record["metadata"] |= {"managedFields": [], "resourceVersion": "5"}
    assert "managedFields" not in released(record)["metadata"]
    assert released(record)["metadata"]["resourceVersion"] == "5"
