import pytest

from services.common.errors import SettingsError
from services.gateway.fleet.endpoints import Endpoint
from services.gateway.fleet.entries import parse_workers
from services.gateway.fleet.names import Name


def test_workers_are_listed_with_or_without_a_pool():
    assert parse_workers(["a=h:1", "h:2", "b=[::1]:3", "c=dns:///h:4"]) == [
        Endpoint(address="h:1", pool="a"), Endpoint(address="h:2"), Endpoint(address="[::1]:3", pool="b"),
        Name(host="h", port=4, pool="c"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "entries",
    [
        ["h"],
        ["a=h"],
        ["a=:1"],
        ["h:x"],
        ["h:0"],
        ["::1:5"],
        ["[::1]"],
        ["h:1", "a=h:1"],
        ["dns:///h"],
        ["dns://h:1"],
        ["x:///h:1"],
    ],
)
def test_a_wrong_list_of_workers_is_refused(entries: list[str]):
    with pytest.raises(SettingsError, match="pool=host:port"):
        parse_workers(entries)
