"""Which objects of which buckets a user may name. Pure."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from services.common.errors import InvalidOption
from services.gateway.keys import LOCAL

_SUBJECT = "{subject}"
_URI = re.compile(r"s3://([a-z0-9][a-z0-9.-]{1,61}[a-z0-9])/([^\x00-\x1f\x7f]{1,1024})")
_TEMPLATE = re.compile(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/([^\x00-\x1f\x7f]*/)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """An object of a bucket."""

    bucket: str
    """Its bucket."""

    key: str
    """Its name there."""

    @property
    def uri(self) -> str:
        """As users write it."""
        return f"s3://{self.bucket}/{self.key}"


def parse_uri(text: str, field: str) -> Place:
    """Raises InvalidOption for what is not s3://bucket/key."""
    match = _URI.fullmatch(text)
    # Some servers take the parts of a key for folders, and .. for the one above.
    if not match or not {"", ".", ".."}.isdisjoint(match[2].split("/")):
        raise InvalidOption("The object is not named as s3://bucket/key; give one like s3://films/old/film.mp4.", field=field)
    return Place(bucket=match[1], key=match[2])


def check_templates(templates: Iterable[str]) -> None:
    """Raises ValueError for one that is not ``bucket/`` or ``bucket/prefix/``."""
    for template in templates:
        if not _TEMPLATE.fullmatch(template):
            raise ValueError(f"{template!r} is not bucket/ or bucket/prefix/, for example incoming/{_SUBJECT}/")


def check_allowed(place: Place, subject: str, templates: Iterable[str], field: str) -> None:
    """Raises InvalidOption where none of ``templates`` covers an object for whoever ``subject`` is."""
    allowed = [filled for template in templates if (filled := _filled(template, subject))]
    if not any(f"{place.bucket}/{place.key}".startswith(prefix) for prefix in allowed):
        text = " or ".join(f"s3://{prefix}" for prefix in allowed) or "none"
        raise InvalidOption(f"The object must lie under {text} here; use another one.", field=field)


def _filled(template: str, subject: str) -> str:
    """A template for somebody; empty where their name could lead to somebody else's objects."""
    if _SUBJECT in template and ("/" in subject or subject in (".", "..")):
        return ""
    return template.replace(_SUBJECT, subject or LOCAL)
