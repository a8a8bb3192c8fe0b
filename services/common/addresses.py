"""From which machine a call comes, also behind proxies. Pure."""

import ipaddress
import re
from collections.abc import Iterable
from urllib.parse import unquote

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_PEER = re.compile(r"ipv[46]:(?P<host>.*):\d+")


def parse_networks(entries: Iterable[str]) -> tuple[Network, ...]:
    """Addresses (192.0.2.1) and networks (10.0.0.0/8). Raises ValueError."""
    return tuple(ipaddress.ip_network(entry, strict=False) for entry in entries)


def parse_address(text: str) -> Address | None:
    """An address; None where it is none, as a name."""
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        return None


def peer_host(peer: str) -> str:
    """The machine's address in what gRPC says of a peer; what it says where there is none, as for a Unix socket."""
    match = _PEER.fullmatch(peer)
    return unquote(match["host"]).strip("[]") if match else peer


def is_within(host: str, networks: Iterable[Network]) -> bool:
    """Whether a machine is in one of the networks."""
    address = parse_address(host)
    if address is None:
        return False
    address = getattr(address, "ipv4_mapped", None) or address
    return any(address in network for network in networks)


def client_address(host: str, forwarded_for: str, trusted: Iterable[Network]) -> str:
    """Whose machine began a request that came from ``host``.

    ``forwarded_for`` is the X-Forwarded-For header; each proxy adds at its end from where it got the request. What stands before
    the first machine that is not a trusted proxy can be anybody's invention, and doesn't count.
    """
    trusted = tuple(trusted)
    way = [part.strip() for part in forwarded_for.split(",") if part.strip()] + [host]
    while len(way) > 1 and is_within(way[-1], trusted):
        way.pop()
    return way[-1]
