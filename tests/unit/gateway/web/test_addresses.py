import asyncio
import ipaddress
import socket

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.gateway.web.addresses import Address, AddressGuard, is_public, parse_networks

# What must never be reached, told apart by the standard library's own tables.
PRIVATE_V4 = ("10.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "224.0.0.0/4")
PRIVATE_V6 = ("::/127", "fc00::/7", "fe80::/10", "fec0::/10", "ff00::/8", "2001:db8::/32")

private_v4 = st.sampled_from(PRIVATE_V4).flatmap(lambda network: st.ip_addresses(v=4, network=network))
private_v6 = st.sampled_from(PRIVATE_V6).flatmap(lambda network: st.ip_addresses(v=6, network=network))


def _v6(prefix: str, address: ipaddress.IPv4Address, shift: int = 0) -> ipaddress.IPv6Address:
    return ipaddress.IPv6Address(int(ipaddress.IPv6Address(prefix)) | int(address) << shift)


@given(st.ip_addresses())
def test_what_is_not_global_by_the_standard_library_is_not_public(address: Address):
    # Packets to NAT64's addresses go to the IPv4 one inside, which counts; the library doesn't look there.
    assume(address not in ipaddress.ip_network("64:ff9b::/96"))
    kinds = ("is_private", "is_loopback", "is_link_local", "is_multicast", "is_reserved", "is_unspecified")
    mapped = getattr(address, "ipv4_mapped", None) or address
    if any(getattr(mapped, kind) for kind in kinds):
        assert not is_public(address)


@given(private_v4 | private_v6)
def test_no_private_address_is_public(address: Address):
    assert not is_public(address)
    assert not AddressGuard().allows(address)


@given(private_v4)
def test_no_private_address_hides_in_an_ipv6_one(address: ipaddress.IPv4Address):
    for inside in (_v6("::ffff:0:0", address), _v6("64:ff9b::", address), _v6("::", address), _v6("2002::", address, 80)):
        assert not is_public(inside), inside


@given(private_v4, st.sampled_from(["{:d}", "0x{:08x}", "0{:o}"]))
def test_no_notation_of_a_private_address_gets_past_the_resolver_and_the_guard(address: ipaddress.IPv4Address, notation: str):
    found = socket.getaddrinfo(notation.format(int(address)), 443, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    assert found
    assert not any(is_public(ipaddress.ip_address(where[0])) for *_, where in found)


@given(private_v4, st.lists(st.sampled_from(["{:d}", "0x{:x}", "0{:o}"]), min_size=4, max_size=4))
def test_neither_does_one_whose_parts_are_written_differently(address: ipaddress.IPv4Address, notations: list[str]):
    text = ".".join(notation.format(part) for notation, part in zip(notations, address.packed, strict=True))
    found = socket.getaddrinfo(text, 443, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)
    assert not any(is_public(ipaddress.ip_address(where[0])) for *_, where in found)


@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "fd00:ec2::254", "100.100.100.200", "192.0.0.192", "168.63.129.16", "::ffff:169.254.169.254",
     "0.0.0.0", "255.255.255.255", "::", "::1", "2001::1", "64:ff9b:1::1", "5f00::1", "4000::1", "2002:7f00:1::"],
)  # fmt: skip
def test_what_clouds_keep_for_themselves_is_not_public(address: str):
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.215.14", "2606:4700::1111", "2a00:1450:4001::1", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_what_everybody_reaches_is_public(address: str):
    assert is_public(ipaddress.ip_address(address))


def test_an_allowed_network_is_allowed_in_every_notation_and_no_other_is():
    guard = AddressGuard(parse_networks(("10.1.0.0/16", "fd12::/16", "127.0.0.1")))
    allowed = ("10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd12::1", "127.0.0.1", "1.1.1.1")
    assert [a for a in allowed if not guard.allows(ipaddress.ip_address(a))] == []
    assert not any(guard.allows(ipaddress.ip_address(a)) for a in ("10.2.0.1", "127.0.0.2", "fd13::1", "::1"))


def test_a_network_that_is_none_is_told():
    with pytest.raises(ValueError, match=r"10\.1\.2\.3/8"):
        parse_networks(("10.1.2.3/8",))


def test_event_loops_resolve_as_sockets_do():
    async def ask() -> list[str]:
        found = await asyncio.get_running_loop().getaddrinfo("0x7f.1", 80, type=socket.SOCK_STREAM)
        return [str(where[0]) for *_, where in found]

    assert asyncio.run(ask()) == ["127.0.0.1"]
