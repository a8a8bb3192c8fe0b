"""The fake API server answers as the recorded real one did."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.kubernetes.cluster import pod
from tests.fakes.kubernetes.selectors import matches
from tests.fakes.kubernetes.server import FakeKubernetes

RECORDED = Path(__file__).parents[2] / "fakes/kubernetes/recorded"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/t3/leases"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/t3/endpointslices"
SPEC = {"holderIdentity": "a", "leaseDurationSeconds": 15, "leaseTransitions": 0}
LEASE = {"kind": "Lease", "apiVersion": "coordination.k8s.io/v1", "metadata": {"name": "l1"}, "spec": SPEC}
# What differs between any two servers, or writes.
_OWN = ("uid", "resourceVersion", "creationTimestamp", "time", "manager")


def recorded(name: str) -> Any:
    return json.loads((RECORDED / name).read_text())


def shape(value: Any) -> Any:
    """The same without what is each server's own."""
    if isinstance(value, dict):
        return {name: type(inner) if name in _OWN else shape(inner) for name, inner in value.items()}
    return [shape(inner) for inner in value] if isinstance(value, list) else value


@pytest.fixture
def fake() -> Iterator[FakeKubernetes]:
    with FakeKubernetes() as fake:
        yield fake


@pytest.fixture
def web(fake: FakeKubernetes) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=fake.address, headers={"Authorization": f"Bearer {fake.token}", "User-Agent": "curl/8"}) as web:
        yield web


def slice_of(endpoints: list[dict[str, Any]], name: str = "s") -> dict[str, Any]:
    metadata = {"name": name, "labels": {"pool": name}}
    return {"metadata": metadata, "addressType": "IPv4", "endpoints": endpoints, "ports": [{"name": "grpc", "port": 50051}]}


def events(web: httpx.Client, version: str, **query: Any) -> list[dict[str, Any]]:
    """What a watch of a second shows."""
    asked = {"watch": "true", "resourceVersion": version, "timeoutSeconds": 1, **query}
    return [json.loads(line) for line in web.get(SLICES, params=asked).text.splitlines()]


def test_a_lease_is_created_and_replaced_as_recorded(web: httpx.Client):
    created = web.post(LEASES, json=LEASE)
    assert (created.status_code, shape(created.json())) == (201, shape(recorded("lease_created_201.json")))
    replaced = web.put(f"{LEASES}/l1", json=created.json() | {"spec": SPEC | {"holderIdentity": "b"}})
    assert (replaced.status_code, shape(replaced.json())) == (200, shape(recorded("lease_replaced_200.json")))
    assert int(replaced.json()["metadata"]["resourceVersion"]) > int(created.json()["metadata"]["resourceVersion"])


def test_what_is_there_already_and_what_is_stale_is_refused_as_recorded(web: httpx.Client):
    created = web.post(LEASES, json=LEASE).json()
    assert web.post(LEASES, json=LEASE).json() == recorded("lease_exists_409.json")
    web.put(f"{LEASES}/l1", json=created | {"spec": SPEC | {"holderIdentity": "b"}})
    assert web.put(f"{LEASES}/l1", json=created).json() == recorded("lease_stale_409.json")


def test_what_is_not_there_or_not_allowed_is_refused_as_recorded(fake: FakeKubernetes, web: httpx.Client):
    missing = web.get("/api/v1/namespaces/t3/pods/none")
    assert (missing.status_code, missing.json()) == (404, recorded("404.json"))
    pods = f"{fake.address}/api/v1/namespaces/t3/pods"
    wrong = httpx.get(pods, headers={"Authorization": "Bearer wrong"})
    assert (wrong.status_code, wrong.json()) == (401, recorded("401.json"))
    anonymous = httpx.get(pods)
    assert (anonymous.status_code, anonymous.json()) == (403, recorded("403_anonymous.json"))
    fake.forbidden.add(("create", "leases"))
    assert web.post(LEASES, json=LEASE).status_code == 403


def test_what_makes_no_sense_is_refused(web: httpx.Client):
    pods = web.post("/api/v1/namespaces/t3/pods", json={"metadata": {"name": "p"}, "spec": {"containers": []}})
    assert (pods.status_code, pods.json()["message"]) == (422, 'Pod "p" is invalid: spec.containers: Required value')
    local = web.post(SLICES, json=slice_of([pod("127.0.0.1")]))
    assert (local.status_code, local.json()["details"]["causes"][0]["field"]) == (422, "endpoints[0].addresses[0]")
    unversioned = web.put(f"{LEASES}/{web.post(LEASES, json=LEASE).json()['metadata']['name']}", json=LEASE)
    assert (unversioned.status_code, unversioned.json()["reason"]) == (422, "Invalid")
    coarse = LEASE | {"metadata": {"name": "l2"}, "spec": {"renewTime": "2026-01-01T00:00:00Z"}}
    assert web.post(LEASES, json=coarse).status_code == 400
    assert web.get("/apis/apps/v1/namespaces/t3/deployments").status_code == 404


def test_a_watch_shows_what_happens_in_order(web: httpx.Client):
    version = web.get(SLICES).json()["metadata"]["resourceVersion"]
    made = web.post(SLICES, json=slice_of([pod("10.0.0.1", "000")])).json()
    for state in ("110", "011"):
        made = web.put(f"{SLICES}/s", json=made | {"endpoints": [pod("10.0.0.1", state)]}).json()
    web.put(f"{SLICES}/s", json=made | {"endpoints": None, "ports": None})
    web.post(SLICES, json=slice_of([], "other"))
    web.delete(f"{SLICES}/s")
    seen = events(web, version, labelSelector="pool=s", allowWatchBookmarks="true")
    assert [event["type"] for event in seen] == ["ADDED", "MODIFIED", "MODIFIED", "MODIFIED", "DELETED", "BOOKMARK"]
    versions = [int(event["object"]["metadata"]["resourceVersion"]) for event in seen]
    assert versions == sorted(versions)
    mark = json.loads((RECORDED / "endpointslices_watch.jsonl").read_text().splitlines()[-1])
    assert shape(seen[-1]) == shape(mark)


def test_a_watch_from_a_forgotten_version_says_so_as_recorded(fake: FakeKubernetes, web: httpx.Client):
    fake.compact()
    (event,) = events(web, "1")
    expected = recorded("watch_old_rv.jsonl")
    expected["object"]["message"] = event["object"]["message"]
    assert event == expected
    assert event["object"]["message"].startswith("too old resource version: 1 (")


def test_a_watch_without_a_version_begins_with_what_is_there(web: httpx.Client):
    web.post(SLICES, json=slice_of([pod("10.0.0.1")]))
    assert [event["type"] for event in events(web, "")] == ["ADDED"]


def test_a_long_list_comes_in_pages_of_one_moment(fake: FakeKubernetes, web: httpx.Client):
    for number in range(5):
        web.post(SLICES, json=slice_of([], f"s{number}"))
    first = web.get(SLICES, params={"limit": 2}).json()
    assert first["metadata"]["remainingItemCount"] == 3
    web.delete(f"{SLICES}/s4")
    rest = web.get(SLICES, params={"limit": 9, "continue": first["metadata"]["continue"]}).json()
    assert [item["metadata"]["name"] for item in first["items"] + rest["items"]] == [f"s{number}" for number in range(5)]
    assert rest["metadata"] == {"resourceVersion": first["metadata"]["resourceVersion"]}
    fake.compact()
    late = web.get(SLICES, params={"limit": 2, "continue": first["metadata"]["continue"]})
    assert (late.status_code, late.json()["reason"]) == (410, "Expired")


def test_a_removal_can_ask_that_nothing_has_changed(web: httpx.Client):
    created = web.post(LEASES, json=LEASE).json()
    stale = {"preconditions": {"resourceVersion": "1"}}
    assert web.request("DELETE", f"{LEASES}/l1", json=stale).json()["reason"] == "Conflict"
    fresh = {"preconditions": {"resourceVersion": created["metadata"]["resourceVersion"]}}
    assert web.request("DELETE", f"{LEASES}/l1", json=fresh).json()["status"] == "Success"


def test_it_can_go_away_and_come_back_with_everything(fake: FakeKubernetes, web: httpx.Client):
    web.post(LEASES, json=LEASE)
    fake.go_away()
    with pytest.raises(httpx.TransportError):
        web.get(f"{LEASES}/l1")
    fake.come_back()
    assert web.get(f"{LEASES}/l1").json()["spec"] == SPEC


@pytest.mark.parametrize(
    ("selector", "chosen"),
    [
        ("a", True),
        ("!a", False),
        ("a=1", True),
        ("a==2", False),
        ("a!=2", True),
        ("a in (1, 2),b", True),
        ("a notin (1)", False),
        ("c", False),
    ],
)
def test_labels_are_selected(selector: str, chosen: bool):
    assert matches({"metadata": {"labels": {"a": "1", "b": ""}}}, selector) is chosen
