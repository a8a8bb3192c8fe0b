import pytest

from services.common.errors import SettingsError
from services.inference.hosts.addresses import HostAddresses, host_addresses

GROUP = {"LWS_LEADER_ADDRESS": "seedvr2-big-1.seedvr2-big.video", "LWS_GROUP_SIZE": "3", "LWS_WORKER_INDEX": "0"}


def test_a_worker_without_rank_hosts_has_all_its_ranks_here():
    assert host_addresses((), "", {}) == HostAddresses()
    assert host_addresses((), "", {}).machines == 1


def test_rank_hosts_that_are_named_are_taken_with_the_place_to_meet():
    found = host_addresses(("b:1", "c:1"), "a:2", {})
    assert found == HostAddresses(hosts=("b:1", "c:1"), meeting="a:2")
    assert found.machines == 3


def test_in_a_group_of_pods_the_names_follow_from_that_of_the_leader():
    found = host_addresses((), "", GROUP)
    assert found.hosts == ("seedvr2-big-1-1.seedvr2-big.video:50062", "seedvr2-big-1-2.seedvr2-big.video:50062")
    assert found.meeting == "seedvr2-big-1.seedvr2-big.video:50064"


def test_a_group_of_one_pod_has_no_other_machine():
    assert host_addresses((), "", GROUP | {"LWS_GROUP_SIZE": "1"}) == HostAddresses()


def test_settings_go_before_what_a_group_says():
    assert host_addresses(("b:1",), "a:2", GROUP) == HostAddresses(hosts=("b:1",), meeting="a:2")


def test_rank_hosts_without_a_place_to_meet_are_refused_in_words():
    with pytest.raises(SettingsError, match="SEEDVR2_INFERENCE_MEETING_ADDRESS must name host:port"):
        host_addresses(("b:1",), "", {})


@pytest.mark.parametrize("address", ["b", "b:", ":1", "b:x", "http://b:1"])
def test_addresses_without_a_port_are_refused_in_words(address: str):
    with pytest.raises(SettingsError, match="must be host:port"):
        host_addresses((address,), "a:2", {})
    with pytest.raises(SettingsError, match="must be host:port"):
        host_addresses(("a:2",), address, {})
