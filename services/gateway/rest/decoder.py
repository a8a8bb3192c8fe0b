"""Fields of a form, or of a JSON object, to a job's request. What ``codec.py`` is for protobuf."""

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

from services.common.errors import InvalidOption
from services.gateway.job_request import JobRequest

_NANO = 10**9
_INT32, _INT64, _UINT64 = 2**31 - 1, 2**63 - 1, 2**64 - 1
_SIZE = re.compile(r"([0-9]{1,9})x([0-9]{1,9})")
_LABEL = re.compile(r"labels\[(.+)\]", re.DOTALL)
_TRUTHS = {"true": True, "1": True, "false": False, "0": False, "": False}

FILES = ("file", "input_reference")
"""Names that a form's file may have; the second one is OpenAI's."""

IGNORED = frozenset({"prompt"})
"""What OpenAI's clients must send and restoration doesn't need."""


def decode_request(fields: Mapping[str, Any], *, upload_id: str = "") -> JobRequest:
    """A request; values are text as in forms, or typed as in JSON. ``upload_id``: of the file that came with it.

    Raises:
        InvalidOption: a field that there isn't, or a value that it can't have.
    """
    values, labels = _values(fields), _labels(fields)
    if upload_id:
        _refuse_two("a file", [name for name in ("upload_id", "object_uri", "https_url") if values.get(name)])
        values["upload_id"] = upload_id
    _refuse_two("sizes", [name for name in ("scale", "short_side", "box") if name in values])
    frames, time_ns = _frames(values), _time_ns(values)
    if frames is not None and time_ns is not None:
        raise InvalidOption("Give the range in frames or in seconds, not in both.", field="start")
    return JobRequest(**values, frames=frames, time_ns=time_ns, labels=tuple(sorted(labels.items())))


def _values(fields: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in fields.items():
        if name in IGNORED or name == "labels" or _LABEL.fullmatch(name) or value is None:
            continue
        if name not in _FIELDS:
            raise InvalidOption(f"There is no field {name!r}; there are {', '.join(sorted(_FIELDS))} and labels.", field=name)
        target, read = _FIELDS[name]
        values[target] = read(name, value)
    return values


def _refuse_two(what: str, names: list[str]) -> None:
    if len(names) > (0 if what == "a file" else 1):
        more = "only the file" if what == "a file" else "one of them"
        raise InvalidOption(f"{' and '.join(names)} can't go together with {what}; give {more}.", field=_field_of(names[0]))


def _frames(values: dict[str, Any]) -> tuple[int, int] | None:
    first, end = values.pop("first_frame", None), values.pop("end_frame", None)
    return None if first is None and end is None else (first or 0, end or 0)


def _time_ns(values: dict[str, Any]) -> tuple[int, int | None] | None:
    start, end = values.pop("start", None), values.pop("end", None)
    if start is None and end is None:
        return None
    return round((start or 0) * _NANO), None if end is None else round(end * _NANO)


def _labels(fields: Mapping[str, Any]) -> dict[str, str]:
    given = fields.get("labels")
    found = _json_object("labels", given) if isinstance(given, str) else {} if given is None else given
    if not isinstance(found, dict):
        raise InvalidOption("Labels are an object of texts; in a form also labels[name]=text.", field="labels")
    single = {match[1]: value for name, value in fields.items() if (match := _LABEL.fullmatch(name))}
    return {text_of("labels", name): text_of("labels", value) for name, value in {**found, **single}.items()}


def _json_object(name: str, text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidOption(f"{name} must be a JSON object.", field=name) from error


def text_of(name: str, value: Any) -> str:
    """A field's text. Raises InvalidOption where it is none, or can't be written in UTF-8."""
    if not isinstance(value, str):
        raise InvalidOption(f"{name} must be text.", field=name)
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidOption(f"{name} has characters that are none.", field=name) from error
    return value


def _number(name: str, value: Any) -> float:
    try:
        number = float(value) if not isinstance(value, bool) else math.nan
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not abs(number) <= _INT32:
        raise InvalidOption(f"{name} must be a number.", field=name)
    return number


def whole(most: int, least: int = 0) -> Callable[[str, Any], int]:
    """What reads a whole number, ``least`` to ``most``; JSON knows 2.0 as one, too. It raises InvalidOption."""

    def read(name: str, value: Any) -> int:
        found = int(value) if isinstance(value, float) and value.is_integer() else value
        text = found if isinstance(found, str) else str(found) if type(found) is int else ""
        number = int(text) if re.fullmatch(r"-?[0-9]{1,20}", text) else None
        if number is None or not least <= number <= most:
            raise InvalidOption(f"{name} must be a whole number, {least} to {most}.", field=name)
        return number

    return read


def _flag(name: str, value: Any) -> bool:
    found = value if isinstance(value, bool) else _TRUTHS.get(value.lower()) if isinstance(value, str) else None
    if found is None:
        raise InvalidOption(f"{name} must be true or false.", field=name)
    return found


def _box(name: str, value: Any) -> tuple[int, int]:
    match = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        raise InvalidOption("The size must be WIDTHxHEIGHT in pixels, for example 1280x720.", field=name)
    return int(match[1]), int(match[2])


_FIELDS: dict[str, tuple[str, Callable[[str, Any], Any]]] = {
    "upload_id": ("upload_id", text_of), "object_uri": ("object_uri", text_of), "https_url": ("https_url", text_of),
    "model": ("model", text_of), "pool": ("pool", text_of), "scale": ("scale", _number),
    "short_side": ("short_side", whole(_INT32)), "size": ("box", _box), "first_frame": ("first_frame", whole(_INT64)),
    "end_frame": ("end_frame", whole(_INT64)), "start": ("start", _number), "end": ("end", _number),
    "seed": ("seed", whole(_UINT64)), "colour": ("colour", text_of), "preview": ("preview", _flag),
    "format": ("container", text_of), "crf": ("crf", whole(51)), "encoder": ("encoder", text_of),
    "input_noise": ("input_noise", _number), "latent_noise": ("latent_noise", _number),
    "steps": ("steps", whole(_INT32)), "cfg_scale": ("cfg_scale", _number),
    "result_uri": ("result_uri", text_of), "webhook_url": ("webhook_url", text_of),
}  # fmt: skip
"""By a field's name here: the request's, and what reads its value."""

_PARAMS = {"target": "scale", "box": "size", "range": "start", "time": "start", "frames": "first_frame", "container": "format",
           "priority": "preview", "source": "file", "size_bytes": "bytes", "job_id": "video_id"}  # fmt: skip


def _field_of(name: str) -> str:
    return _PARAMS.get(name, name)


def param_of(field: str) -> str:
    """What a field of the gateway's own request is called here."""
    return _field_of(field.rpartition(".")[2])
