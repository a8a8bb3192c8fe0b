import json
from pathlib import Path
from typing import Any

import pytest

from services.gateway.fleet.endpoints import Endpoint
from services.gateway.fleet.slices import endpoints_of, pools_of
from tests.fakes.kubernetes.cluster import pod

RECORDED = Path(__file__).parents[3] / "fakes/kubernetes/recorded/endpointslices_watch.jsonl"


def a_slice(*endpoints: dict[str, Any], version: int = 1, **changes: Any) -> dict[str, Any]:
    metadata = {"name": "s", "resourceVersion": str(version), "labels": {"seedvr2.io/pool": "gpu"}}
    found = {"metadata": metadata, "addressType": "IPv4", "ports": [{"name": "grpc", "port": 5}], "endpoints": [*endpoints]}
    return found | changes


def known(*slices: dict[str, Any]) -> dict[str, str]:
    return {endpoint.address: endpoint.known_as or "ready" for endpoint in endpoints_of(slices)}


def test_each_recorded_pod_starts_gets_spans_drains_and_is_gone():
    lives: dict[str, list[str]] = {}
    for line in RECORDED.read_text().splitlines():
        event = json.loads(line)
        if event["type"] == "BOOKMARK":
            continue
        found = {e.address: e.known_as or "ready" for e in endpoints_of([event["object"]])}
        for address in lives.keys() | found.keys():
            now, life = found.get(address, "gone"), lives.setdefault(address, [])
            if life[-1:] != [now]:
                life.append(now)
    whole = ["starting", "ready", "draining", "gone"]
    assert lives["10.244.0.15:50051"] == whole
    assert lives["10.244.0.7:50051"] == whole[1:]
    assert lives["10.244.0.19:50051"] == whole[:2]
    assert all(life in (whole, whole[1:], whole[:2]) for life in lives.values())


def test_an_endpoint_has_the_pool_of_its_service_and_its_pod():
    assert endpoints_of([a_slice(pod("10.0.0.1", uid="u"))]) == [Endpoint(address="10.0.0.1:5", pool="gpu", identity="u")]


def test_a_slice_without_endpoints_or_ports_has_no_workers():
    assert (
        endpoints_of([a_slice(endpoints=None), a_slice(pod("10.0.0.1"), ports=None), a_slice(pod("x"), addressType="FQDN")]) == []
    )


def test_a_pool_without_workers_is_known_by_its_service():
    unlabelled = {"metadata": {"name": "s", "resourceVersion": "1"}, "addressType": "IPv4"}
    assert pools_of([a_slice(), a_slice(ports=None, endpoints=None), unlabelled]) == {"gpu"}


def test_what_is_not_said_of_a_condition_means_ready():
    assert known(a_slice({"addresses": ["10.0.0.1"]}, {"addresses": ["10.0.0.2"], "conditions": {"ready": None}})) == {
        "10.0.0.1:5": "ready", "10.0.0.2:5": "ready",
    }  # fmt: skip


def test_a_service_that_shows_unready_pods_says_ready_of_one_that_ends():
    assert known(a_slice(pod("10.0.0.1", "111"))) == {"10.0.0.1:5": "draining"}


def test_of_several_ports_the_one_called_grpc_counts():
    ports = [{"name": "metrics", "port": 9}, {"name": "grpc", "port": 7}]
    assert known(a_slice(pod("10.0.0.1"), ports=ports)) == {"10.0.0.1:7": "ready"}
    assert known(a_slice(pod("10.0.0.1"), ports=[{"name": "x", "port": 9}])) == {"10.0.0.1:9": "ready"}
    assert known(a_slice(pod("10.0.0.1"), ports=[{"name": "x", "port": 9}, {"name": "y", "port": 8}])) == {}


def test_an_address_of_version_six_has_brackets():
    assert known(a_slice(pod("fd00::1"), addressType="IPv6")) == {"[fd00::1]:5": "ready"}


def test_a_pod_with_addresses_of_both_families_is_one_worker():
    four, six = a_slice(pod("10.0.0.1", uid="u")), a_slice(pod("fd00::1", uid="u"), addressType="IPv6", version=2)
    assert known(six, four) == {"10.0.0.1:5": "ready"}


@pytest.mark.parametrize(
    ("older", "newer", "agreed"), [("000", "110", "ready"), ("110", "000", "starting"), ("011", "110", "draining")]
)
def test_of_a_pod_in_several_slices_the_newest_word_counts_but_its_end_is_final(older: str, newer: str, agreed: str):
    slices = [a_slice(pod("10.0.0.1", newer, "u"), version=20), a_slice(pod("10.0.0.1", older, "u"), version=9)]
    assert known(*slices) == known(*reversed(slices)) == {"10.0.0.1:5": agreed}


def test_a_new_pod_at_the_address_of_an_old_one_is_the_one_that_counts():
    old, new = a_slice(pod("10.0.0.1", "011", "old")), a_slice(pod("10.0.0.1", "000", "new"), version=2)
    for slices in ([old, new], [new, old]):
        assert [(e.identity, e.known_as) for e in endpoints_of(slices)] == [("new", "starting")]
