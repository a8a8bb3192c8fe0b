import pytest

from services.common.addresses import client_address, is_within, parse_networks, peer_host

PROXIES = parse_networks(["10.0.0.0/8", "192.0.2.7", "fd00::/8"])


@pytest.mark.parametrize(
    ("peer", "host"),
    [("ipv4:192.0.2.1:5000", "192.0.2.1"), ("ipv6:%5B2001:db8::1%5D:5000", "2001:db8::1"), ("unix:", "unix:")],
)
def test_the_machine_of_a_peer_is_known(peer: str, host: str):
    assert peer_host(peer) == host


@pytest.mark.parametrize(
    ("host", "forwarded", "client"),
    [
        ("198.51.100.1", "203.0.113.9", "198.51.100.1"),
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", "203.0.113.9", "203.0.113.9"),
        ("10.1.2.3", "1.1.1.1, 203.0.113.9, 10.9.9.9", "203.0.113.9"),
        ("10.1.2.3", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("10.1.2.3", "nonsense", "nonsense"),
        ("fd00::1", "2001:db8::9", "2001:db8::9"),
    ],
)
def test_only_trusted_proxies_are_believed(host: str, forwarded: str, client: str):
    assert client_address(host, forwarded, PROXIES) == client


def test_an_address_of_the_fourth_version_in_the_sixth_is_the_same_machine():
    assert is_within("::ffff:10.0.0.1", PROXIES)
    assert not is_within("nonsense", PROXIES)
