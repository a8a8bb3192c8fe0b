"""Typed settings from the environment: read once, in ``__main__``, and handed down.

A service declares a frozen dataclass; each field is a setting, named ``<PREFIX>_<FIELD>`` in the environment, with a line of
text under it in ``metadata["help"]`` (see :func:`setting`). ``docs/settings.md`` lists them all and a test compares.
"""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

from services.common.errors import SettingsError


def setting(default: Any, help: str) -> Any:
    """A field of a settings class: its default and one line that says what it does, with the unit."""
    return dataclasses.field(default=default, metadata={"help": help})


T = TypeVar("T")


def read_settings(cls: type[T], prefix: str, environment: Mapping[str, str]) -> T:
    """Fill ``cls`` from ``environment``.

    Raises:
        SettingsError: a value that can't be read, an unknown name under the prefix, or one that ``__post_init__`` refuses.
    """
    fields = {f"{prefix}_{f.name}".upper(): f for f in dataclasses.fields(cls)}  # type: ignore[arg-type]
    hints = typing.get_type_hints(cls)
    unknown = [name for name in environment if name.startswith(prefix.upper() + "_") and name not in fields]
    if unknown:
        raise SettingsError(f"{unknown[0]} is not a setting; the settings are {', '.join(sorted(fields))}.")
    values = {f.name: _parse(name, environment[name], hints[f.name]) for name, f in fields.items() if name in environment}
    try:
        return cls(**values)
    except ValueError as error:
        raise SettingsError(f"{prefix}: {error}") from error


def as_environment(settings: Any, prefix: str) -> dict[str, str]:
    """The environment from which :func:`read_settings` reads the same values; fields that are None are left out."""
    values = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    return {f"{prefix}_{name}".upper(): _format(value) for name, value in values.items() if value is not None}


def _format(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _parse(name: str, text: str, kind: Any) -> Any:
    if isinstance(kind, types.UnionType):
        kind = next(k for k in typing.get_args(kind) if k is not type(None))
    try:
        if kind is bool:
            return {"true": True, "1": True, "false": False, "0": False}[text.strip().lower()]
        if typing.get_origin(kind) is tuple:
            return tuple(part.strip() for part in text.split(",") if part.strip())
        return kind(text)
    except (ValueError, KeyError) as error:
        raise SettingsError(f"{name}={text!r} can't be read as {getattr(kind, '__name__', kind)}.") from error
