"""Label selectors."""

import re

from tests.fakes.kubernetes.kinds import Object

_SET = re.compile(r"(?P<name>[^\s,!=()]+) (?P<how>in|notin) \((?P<values>[^)]*)\)")


def matches(found: Object, selector: str) -> bool:
    """Whether an object's labels are what a selector asks for."""
    labels = found["metadata"].get("labels") or {}
    sets = list(_SET.finditer(selector))
    rest = _SET.sub("", selector)
    plain = [part.strip() for part in rest.split(",") if part.strip()]
    return all(_is_in(labels, each) for each in sets) and all(_is(labels, each) for each in plain)


def _is_in(labels: dict[str, str], asked: re.Match[str]) -> bool:
    values = {value.strip() for value in asked["values"].split(",")}
    return (labels.get(asked["name"]) in values) == (asked["how"] == "in")


def _is(labels: dict[str, str], asked: str) -> bool:
    if asked.startswith("!"):
        return asked[1:] not in labels
    if "!=" in asked:
        name, _, value = asked.partition("!=")
        return labels.get(name.strip()) != value.strip()
    if "=" in asked:
        name, _, value = asked.replace("==", "=").partition("=")
        return labels.get(name.strip()) == value.strip()
    return asked in labels
