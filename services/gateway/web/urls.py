"""URLs that users name: read once, and used as they were read. Pure."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urljoin, urlsplit

from services.common.errors import InvalidOption

_MAX_CHARACTERS = 4096
_PORTS = {"https": 443, "http": 80}
# No space or control character can begin a second header line or request, and no backslash be read as a slash elsewhere.
_PLAIN = re.compile(r"[!-\[\]-~]+")
_HOST = re.compile(r"[a-z0-9_]([a-z0-9._-]*[a-z0-9])?|[0-9a-f:.]+")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f/\\]")
_MAX_NAME_CHARACTERS = 255


@dataclass(frozen=True, slots=True, kw_only=True)
class Url:
    """An address on the web."""

    scheme: str
    """https or http."""

    host: str
    """A name or a numeric address, in lower case."""

    port: int
    """1 to 65535."""

    target: str
    """Path and query, as they are sent."""

    @property
    def text(self) -> str:
        """The whole."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}{self.target}"

    @property
    def shown(self) -> str:
        """For logs and people: without the query, which may hold a signature."""
        return self.text.partition("?")[0]

    @property
    def filename(self) -> str:
        """The last part of the path; may be empty."""
        return shown_name(unquote(PurePosixPath(self.target.partition("?")[0]).name).replace("/", "_"))


def parse_url(text: str, *, field: str, http: bool) -> Url:
    """Read a URL; ``http``: one without encryption will do.

    Raises:
        InvalidOption: it can't be used.
    """
    if len(text) > _MAX_CHARACTERS or not _PLAIN.fullmatch(text):
        raise InvalidOption(
            f"The URL has more than {_MAX_CHARACTERS} characters, or spaces, backslashes or letters beyond ASCII; "
            "percent-encode them, and write the host in its xn-- form.",
            field=field,
        )
    try:
        parts = urlsplit(text)
        scheme, host, port = parts.scheme.lower(), (parts.hostname or "").lower().rstrip("."), parts.port
    except ValueError as error:
        raise InvalidOption("The URL can't be read; give one like https://example.com/film.mp4.", field=field) from error
    if scheme not in (("https", "http") if http else ("https",)):
        raise InvalidOption(f"The URL begins with {scheme or 'no scheme'}; give one that begins with https://.", field=field)
    if "@" in parts.netloc:
        raise InvalidOption("The URL has a user name in it; give one without, for example a signed one.", field=field)
    if not _HOST.fullmatch(host) or port == 0:
        raise InvalidOption("The URL has no host that can be used; give one like https://example.com/film.mp4.", field=field)
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    return Url(scheme=scheme, host=host, port=port or _PORTS[scheme], target=target)


def shown_name(path: str) -> str:
    """The last part of a path as a file name that does no harm."""
    return _UNPRINTABLE.sub("_", path.rpartition("/")[2])[-_MAX_NAME_CHARACTERS:]


def redirected(url: Url, location: str, *, field: str, http: bool) -> Url:
    """Where a redirect leads; one without encryption only where ``url`` was so too.

    Raises:
        InvalidOption: it leads to something that can't be used.
    """
    return parse_url(urljoin(url.text, location), field=field, http=http and url.scheme == "http")


def host_matches(host: str, patterns: tuple[str, ...]) -> bool:
    """Whether a host is one of ``patterns``: names, or ``*.example.com`` for all below it."""
    return any(host.endswith(p[1:]) if p.startswith("*.") else host == p for p in (pattern.lower() for pattern in patterns))
