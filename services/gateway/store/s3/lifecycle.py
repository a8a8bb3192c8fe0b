"""Rules of a bucket that remove leftovers, added to those that are there. Pure: XML in, XML out."""

import base64
import hashlib
from dataclasses import dataclass
from xml.etree import ElementTree

_NAMESPACE = "http://s3.amazonaws.com/doc/2006-03-01/"
_ID = "seedvr2-leftovers"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """A bucket's configuration."""

    xml: bytes
    """As it is sent."""

    @property
    def md5(self) -> str:
        """As a header; servers insist on it."""
        return base64.b64encode(hashlib.md5(self.xml, usedforsecurity=False).digest()).decode()


def parts_rule(prefix: str, *, days: int) -> ElementTree.Element:
    """Uploads in parts under an installation's ``prefix`` that were not completed go after ``days``."""
    return _rule(f"{_ID}:{prefix}parts", prefix, "AbortIncompleteMultipartUpload", "DaysAfterInitiation", days)


def expiry_rule(prefix: str, begin: str, *, days: int) -> ElementTree.Element:
    """Objects whose keys begin with ``begin`` go ``days`` after they were written."""
    return _rule(f"{_ID}:{prefix}{begin}", prefix + begin, "Expiration", "Days", days)


def merged(there: bytes | None, wanted: list[ElementTree.Element]) -> Rules | None:
    """The configuration with our rules in place of older ones of ours, and all others as they are; None: nothing to change."""
    # The server is trusted with everything else, too.
    root = ElementTree.fromstring(there) if there else ElementTree.Element(_tag("LifecycleConfiguration"))  # noqa: S314
    ours = {_text(rule, "ID"): rule for rule in wanted}
    found = {_text(rule, "ID"): rule for rule in root if _text(rule, "ID") in ours}
    if all(name in found and _means(found[name]) >= _means(rule) for name, rule in ours.items()):
        return None
    for rule in found.values():
        root.remove(rule)
    root.extend(wanted)
    for element in root.iter():
        # Some servers answer without the namespace, and all want one document.
        element.tag = _tag(_local(element))
    ElementTree.register_namespace("", _NAMESPACE)
    return Rules(xml=ElementTree.tostring(root, encoding="utf-8", xml_declaration=False))


def _rule(name: str, prefix: str, action: str, unit: str, days: int) -> ElementTree.Element:
    rule = ElementTree.Element(_tag("Rule"))
    for child, text in (("ID", name), ("Status", "Enabled")):
        ElementTree.SubElement(rule, _tag(child)).text = text
    ElementTree.SubElement(ElementTree.SubElement(rule, _tag("Filter")), _tag("Prefix")).text = prefix
    ElementTree.SubElement(ElementTree.SubElement(rule, _tag(action)), _tag(unit)).text = str(days)
    return rule


def _means(rule: ElementTree.Element) -> set[tuple[str, str]]:
    """What a rule says, whatever the order and the namespace."""
    return {(_local(element), text) for element in rule.iter() if (text := (element.text or "").strip())}


def _text(rule: ElementTree.Element, name: str) -> str:
    return next((child.text or "" for child in rule if _local(child) == name), "")


def _local(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _tag(name: str) -> str:
    return f"{{{_NAMESPACE}}}{name}"
