from dataclasses import dataclass

import pytest

from services.common.errors import NewerRelease
from services.common.records import known_fields, record_fields, require_known, unknown_fields, used_fields


@dataclass(frozen=True, slots=True)
class Thing:
    size: int = 0


def test_a_record_gives_its_fields_without_the_version():
    assert record_fields(b'{"schema_version": 2, "size": 3}', 2, "a thing") == {"size": 3}


def test_a_record_of_a_later_version_belongs_to_a_later_release():
    with pytest.raises(NewerRelease, match="a thing of schema version 3 can't be read by this release, which reads 2"):
        record_fields(b'{"schema_version": 3}', 2, "a thing")


@pytest.mark.parametrize("data", [b'{"schema_version": 1}', b"{}", b'{"schema_version": "x"}'])
def test_what_is_no_record_of_this_version_is_broken(data: bytes):
    with pytest.raises(ValueError, match="this release reads 2"):
        record_fields(data, 2, "a thing")


def test_only_what_is_used_is_written():
    assert (used_fields(Thing()), used_fields(Thing(size=1))) == ({}, {"size": 1})


def test_what_a_class_does_not_have_is_told_apart():
    record = {"size": 1, "weight": 2}
    assert unknown_fields(record, Thing) == ["weight"]
    assert known_fields(record, Thing) == {"size": 1}
    require_known([{"size": 1}, {}], Thing, "a thing")
    with pytest.raises(NewerRelease, match="a thing has weight, which this release doesn't know"):
        require_known([{"size": 1}, record], Thing, "a thing")
