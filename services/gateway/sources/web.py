"""A source on the web."""

import contextlib
import re
import time
from collections.abc import AsyncIterator

from services.common.errors import InvalidInput, InvalidOption, Unavailable
from services.gateway.sources.remote import Stream
from services.gateway.web.client import Answer, WebClient
from services.gateway.web.headers import retry_after_s
from services.gateway.web.urls import Url, host_matches, parse_url

FIELD = "request.source.https_url"
"""Where a request names it."""

_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")
_OUTSIDE = re.compile(r"bytes \*/(\d+)")
_PASSING = frozenset({408, 425, 429})


def source_url(text: str, *, hosts: tuple[str, ...], http: bool) -> Url:
    """The URL of a request.

    Raises:
        InvalidOption: it can't be used, or its host is none of ``hosts``, where there are some.
    """
    url = parse_url(text, field=FIELD, http=http)
    if hosts and not host_matches(url.host, hosts):
        raise InvalidOption(f"Videos are not fetched from {url.host} here; use one of {', '.join(hosts)}.", field=FIELD)
    return url


class WebSource:
    """See :class:`Remote`."""

    def __init__(self, url: Url, web: WebClient, hosts: tuple[str, ...]) -> None:
        """``hosts`` are those that redirects may lead to; none: any."""
        self._url = url
        self._web = web
        self._hosts = hosts

    @contextlib.asynccontextmanager
    async def open(self, offset: int, tag: str) -> AsyncIterator[Stream]:
        """See :class:`Remote`."""
        rest = [("Range", f"bytes={offset}-"), ("If-Range", tag)]
        for headers in ([rest] if offset and tag else []) + [[]]:
            request = self._web.request("GET", self._url, headers=headers, follow=True, field=FIELD, hosts=self._hosts)
            async with request as answer:
                _check(answer)
                stream = _stream(answer, offset, tag) if headers else _whole(answer)
                if stream is not None:
                    yield stream
                    return
        raise Unavailable(f"{self._url.host} sends another part of the file than was asked for.")


def _check(answer: Answer) -> None:
    status, host = answer.status, answer.url.host
    if status in _PASSING or status >= 500:
        pause_s = retry_after_s(answer.headers.get("retry-after", ""), time.time())
        raise Unavailable(f"{host} answers {status}.", retry_after_s=pause_s)
    if status not in (200, 206, 416):
        raise InvalidInput(f"{host} answers {status} for {answer.url.shown}; give a URL that anybody can read.", field=FIELD)
    if answer.headers.get("content-encoding", "identity") != "identity":
        raise InvalidInput(f"{host} sends the file compressed, without being asked; give another URL.", field=FIELD)


def _stream(answer: Answer, offset: int, tag: str) -> Stream | None:
    """What comes where the rest was asked for; None where that is of another version, or another part."""
    if answer.status == 200:
        return _whole(answer)
    if _tag(answer) not in ("", tag):
        return None
    content_range = answer.headers.get("content-range", "")
    if answer.status == 416:
        outside = _OUTSIDE.fullmatch(content_range)
        nothing_left = outside is not None and int(outside[1]) == offset
        return Stream(offset=offset, size_bytes=offset, tag=tag, pieces=_nothing()) if nothing_left else None
    part = _RANGE.fullmatch(content_range)
    if not part or int(part[1]) != offset or part[3] not in ("*", str(int(part[2]) + 1)):
        return None
    return Stream(offset=offset, size_bytes=int(part[2]) + 1, tag=tag, pieces=answer.pieces)


def _whole(answer: Answer) -> Stream | None:
    length = answer.headers.get("content-length", "")
    size_bytes = int(length) if length.isdigit() else 0
    return Stream(offset=0, size_bytes=size_bytes, tag=_tag(answer), pieces=answer.pieces) if answer.status == 200 else None


def _tag(answer: Answer) -> str:
    etag = answer.headers.get("etag", "")
    # A weak one says that two versions mean the same, not that their bytes do.
    return answer.headers.get("last-modified", "") if not etag or etag.startswith("W/") else etag


async def _nothing() -> AsyncIterator[bytes]:
    for piece in tuple[bytes, ...]():
        yield piece
