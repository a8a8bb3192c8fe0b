"""Stored records: JSON with the version of its form, read by other releases than the one that wrote it. Pure.

A release may add fields to a record, with a default that means what was before, and written only where they have another
value; what changes the meaning of a record has another version. So an earlier release can read all that doesn't use
what it doesn't know, and leaves the rest to later ones.
"""

import json
from collections.abc import Iterable, Mapping
from dataclasses import fields
from typing import Any

from services.common.errors import NewerRelease


def record_fields(data: bytes, version: int, what: str) -> dict[str, Any]:
    """The fields of a stored record of this version; ``what`` it is, for people.

    Raises:
        NewerRelease: it has a later version.
        ValueError: it is no such record.
    """
    record: dict[str, Any] = json.loads(data)
    found = record.pop("schema_version", None)
    if isinstance(found, int) and found > version:
        raise NewerRelease(f"{what} of schema version {found} can't be read by this release, which reads {version}.")
    if found != version:
        raise ValueError(f"{what} of schema version {found}; this release reads {version}")
    return record


def used_fields(value: Any) -> dict[str, Any]:
    """The fields of a plain dataclass that have another value than their default: an earlier release meets what is used only."""
    return {each.name: getattr(value, each.name) for each in fields(value) if getattr(value, each.name) != each.default}


def unknown_fields(record: Mapping[str, Any], cls: Any) -> list[str]:
    """Names in a record that its class doesn't have."""
    return sorted(record.keys() - {field.name for field in fields(cls)})


def known_fields(record: Mapping[str, Any], cls: Any) -> dict[str, Any]:
    """The record without what its class doesn't have: enough to show it, too little to act on it."""
    unknown = unknown_fields(record, cls)
    return {name: value for name, value in record.items() if name not in unknown}


def require_known(records: Iterable[Mapping[str, Any]], cls: Any, what: str) -> None:
    """Raise NewerRelease where records have what their class doesn't have."""
    for record in records:
        if unknown := unknown_fields(record, cls):
            raise NewerRelease(f"{what} has {unknown[0]}, which this release doesn't know.")
