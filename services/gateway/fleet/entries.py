"""The list of workers in the settings. Pure."""

from collections.abc import Sequence

from services.common.errors import SettingsError
from services.gateway.fleet.endpoints import Endpoint, Finder, Listed, split_address
from services.gateway.fleet.names import Name, Named

_DNS = "dns:///"


def parse_workers(entries: Sequence[str]) -> list[Endpoint | Name]:
    """``pool=host:port`` and ``pool=dns:///host:port`` entries; the pool may be left out.

    Raises:
        SettingsError: an entry of another form, or an address twice.
    """
    found: dict[str, Endpoint | Name] = {}
    for entry in entries:
        pool, _, place = entry.rpartition("=")
        address = split_address(place.removeprefix(_DNS))
        if address is None or place in found:
            raise SettingsError(
                f"{entry!r} in the list of workers is not pool=host:port or pool=dns:///host:port, or its address is there twice."
            )
        if place.startswith(_DNS):
            found[place] = Name(host=address[0], port=address[1], pool=pool)
        else:
            found[place] = Endpoint(address=place, pool=pool)
    return list(found.values())


def finders_of(entries: Sequence[str], *, resolve_s: float) -> list[Finder]:
    """Who finds the workers of the list. Raises SettingsError."""
    parsed = parse_workers(entries)
    named: list[Finder] = [Named(each, resolve_s=resolve_s) for each in parsed if isinstance(each, Name)]
    return [Listed([each for each in parsed if isinstance(each, Endpoint)]), *named]
