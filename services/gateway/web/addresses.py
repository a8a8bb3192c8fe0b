"""Which addresses the gateway may connect to for somebody else. Pure.

The rule is the registries' own: what IANA lists as special (https://www.iana.org/assignments/iana-ipv4-special-registry and
iana-ipv6-special-registry) is not for guests, and of IPv6 nothing outside of the global unicast space is.
"""

import ipaddress
from collections.abc import Iterable

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_SPECIAL_V4 = tuple(
    ipaddress.IPv4Network(network)
    for network in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
        "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
        # A cloud's host talks to its guests from this one, which the registry doesn't know.
        "168.63.129.16/32",
    )
)  # fmt: skip
_UNICAST_V6 = ipaddress.IPv6Network("2000::/3")
_SPECIAL_V6 = tuple(
    ipaddress.IPv6Network(network)
    for network in ("2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20")
)  # fmt: skip
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")


class AddressGuard:
    """Public addresses, and those of networks that the operator allows."""

    def __init__(self, allowed: Iterable[Network] = ()) -> None:
        self._allowed = tuple(allowed)

    def allows(self, address: Address) -> bool:
        """Whether the gateway may connect there."""
        real = _real(address)
        return any(real in network for network in self._allowed if network.version == real.version) or is_public(real)


def is_public(address: Address) -> bool:
    """Whether anybody on the internet could reach this address too."""
    real = _real(address)
    if isinstance(real, ipaddress.IPv4Address):
        return not any(real in network for network in _SPECIAL_V4)
    return real in _UNICAST_V6 and not any(real in network for network in _SPECIAL_V6)


def parse_networks(texts: Iterable[str]) -> tuple[Network, ...]:
    """Networks as they are written in settings, 10.1.0.0/16 or a single address.

    Raises:
        ValueError: one is not a network.
    """
    return tuple(ipaddress.ip_network(text) for text in texts)


def _real(address: Address) -> Address:
    """The IPv4 address that packets to some IPv6 addresses go to in the end; else the address itself."""
    if isinstance(address, ipaddress.IPv6Address) and (address in _MAPPED or address in _NAT64):
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
