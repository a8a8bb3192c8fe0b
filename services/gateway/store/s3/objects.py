"""Objects of a bucket by key: the verbs of S3 that the store is made of. The one place that knows the client's inner calls."""

import functools
import hashlib
import itertools
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from minio import Minio
from minio.datatypes import Part
from urllib3 import BaseHTTPResponse

from services.common.errors import AlreadyExists, NotFound, RangeOutOfBounds, WrongState
from services.gateway.store.s3.calls import Calls
from services.gateway.store.s3.faults import ERRORS, Damaged, Kind, kind_of

_AFTER_SLASH = chr(ord("/") + 1)
_PAGE = 1000
_PIECE_BYTES = 1 << 20
_META = "x-amz-meta-"
_SHA256 = "sha256"


@dataclass(frozen=True, slots=True, kw_only=True)
class Head:
    """What is known of an object without its bytes."""

    size: int
    """Bytes."""

    tag: str
    """Its ETag; another one after each write."""

    modified: float
    """Seconds since 1970."""

    metadata: Mapping[str, str]
    """What was written with it, names in lower case."""


class Objects:
    """A bucket's objects under a prefix.

    Methods raise NotFound where there is no such object, StoreFull, and StoreUnavailable where the server doesn't answer, refuses
    the gateway, or has no such bucket.
    """

    def __init__(self, client: Minio, calls: Calls, *, bucket: str, prefix: str, encryption: Mapping[str, str]) -> None:
        """``encryption`` are the headers with which objects are written."""
        self._client = client
        self._calls = calls
        self._bucket = bucket
        self._prefix = prefix
        self._encryption = encryption

    def name(self, key: str) -> str:
        """A key's name in the bucket."""
        return self._prefix + key

    # ---- read ----

    async def head(self, key: str) -> Head:
        """An object without its bytes."""
        return _head(await self._call("HEAD", key))

    async def get(self, key: str) -> tuple[bytes, str]:
        """A small object, compared with the hash it was written with, and its tag."""

        def call() -> tuple[bytes, str]:
            response = self._send("GET", key)
            head = _head(response)
            check_hash(head, hashlib.sha256(response.data).hexdigest())
            return response.data, head.tag

        return await self._calls.run(call)

    async def read(self, key: str, offset: int = 0, length: int | None = None, tag: str = "") -> AsyncGenerator[bytes, None]:
        """A part of an object in pieces, all of one version: that with ``tag``, or the one that is there now.

        A connection that breaks is made again where it broke. Raises WrongState where the object was replaced meanwhile.
        """
        failed = 0
        while length is None or length > 0:
            try:
                response = await self._open(key, offset, length, tag)
            except RangeOutOfBounds:
                return
            tag = _head(response).tag
            try:
                while piece := await self._calls.once(response.read, _PIECE_BYTES):
                    yield piece
                    failed, offset = 0, offset + len(piece)
                    length = None if length is None else length - len(piece)
                return
            except ERRORS as error:
                failed += 1
                await self._calls.pause(failed, error)
            finally:
                self._calls.soon(response.close)

    async def keys(self, prefix: str) -> list[str]:
        """All keys that begin with ``prefix``; sorted."""
        return sorted(name.removeprefix(self._prefix) for name in await self._list(prefix, recursive=True))

    async def names(self, prefix: str) -> list[str]:
        """What follows ``prefix`` in keys up to the next slash; sorted."""
        found = await self._list(prefix, recursive=False)
        return sorted(name.removeprefix(self.name(prefix)).removesuffix("/") for name in found)

    # ---- write ----

    async def put(self, key: str, data: bytes, metadata: Mapping[str, str] | None = None) -> str:
        """Write a small object whatever is there; returns its tag."""
        return _tag(await self._call("PUT", key, data, self._written(data, metadata)))

    async def put_if(self, key: str, data: bytes, *, tag: str | None = None, metadata: Mapping[str, str] | None = None) -> str:
        """Write a small object where the one that is there has ``tag``, or for None where there is none; returns the new tag.

        The client's own ``put_object`` takes no conditions: among its metadata they would be ignored without a word.

        Raises:
            AlreadyExists: there is one, for None. WrongState: it has another tag.
        """
        condition = {"If-None-Match": "*"} if tag is None else {"If-Match": f'"{tag}"'}
        headers = self._written(data, metadata) | condition

        def call(again: bool) -> str:
            try:
                return _tag(self._send("PUT", key, data, headers))
            except ERRORS as error:
                # The answer to an earlier try was lost, but maybe not the write.
                if again and kind_of(error) is Kind.CHANGED and (written := self._tag_of(key, data)):
                    return written
                raise

        try:
            return await self._calls.run_told(call)
        except WrongState as error:
            if tag is None:
                raise AlreadyExists("There is such an object already.") from error
            # Servers differ in what they say where nothing is there.
            await self.head(key)
            raise

    async def delete(self, key: str) -> None:
        """Remove an object; one that is absent is fine."""
        try:
            await self._call("DELETE", key)
        except NotFound:
            return

    # ---- write in parts ----

    async def begin(self, key: str) -> str:
        """Begin an object in parts; returns its id."""
        headers: dict[str, Any] = dict(self._encryption)
        return await self._calls.run(lambda: self._client._create_multipart_upload(self._bucket, self.name(key), headers))

    async def part(self, key: str, upload_id: str, number: int, data: bytes) -> str:
        """Send part ``number``; returns its tag. Raises NotFound where the object in parts is gone."""
        return await self._calls.run(
            lambda: self._client._upload_part(self._bucket, self.name(key), data, None, upload_id, number)
        )

    async def complete(self, key: str, upload_id: str, parts: list[tuple[int, str]]) -> None:
        """Make an object of parts. Raises NotFound where they are gone: perhaps because they are an object by now."""
        listed = [Part(number, tag) for number, tag in parts]
        await self._calls.run(lambda: self._client._complete_multipart_upload(self._bucket, self.name(key), upload_id, listed))

    async def abort(self, key: str, upload_id: str) -> None:
        """Remove parts; ones that are gone are fine."""
        try:
            await self._calls.run(lambda: self._client._abort_multipart_upload(self._bucket, self.name(key), upload_id))
        except NotFound:
            return

    # ---- one try, in a thread ----

    async def _call(self, method: str, key: str, body: bytes | None = None, headers: Mapping[str, str] | None = None) -> Any:
        return await self._calls.run(lambda: self._send(method, key, body, headers))

    def _send(
        self, method: str, key: str, body: bytes | None = None, headers: Mapping[str, str] | None = None, *, whole: bool = True
    ) -> BaseHTTPResponse:
        sent: dict[str, Any] = dict(headers or {})
        return self._client._execute(method, self._bucket, self.name(key), body, sent, preload_content=whole, no_body_trace=True)

    async def _open(self, key: str, offset: int, length: int | None, tag: str) -> BaseHTTPResponse:
        last = "" if length is None else str(offset + length - 1)
        headers = {"Range": f"bytes={offset}-{last}"} if offset or length is not None else {}
        if tag:
            headers["If-Match"] = f'"{tag}"'
        return await self._calls.run(lambda: self._send("GET", key, None, headers, whole=False))

    async def _list(self, prefix: str, *, recursive: bool) -> list[str]:
        names = page = await self._calls.run(lambda: self._page(prefix, None, recursive))
        while len(page) == _PAGE:
            # Behind everything that a name with a slash at its end stands for.
            after = page[-1][:-1] + _AFTER_SLASH if page[-1].endswith("/") else page[-1]
            page = await self._calls.run(functools.partial(self._page, prefix, after, recursive))
            names = names + page
        return names

    def _page(self, prefix: str, after: str | None, recursive: bool) -> list[str]:
        found = self._client.list_objects(self._bucket, self.name(prefix), recursive=recursive, start_after=after)
        return [str(each.object_name) for each in itertools.islice(found, _PAGE)]

    def _tag_of(self, key: str, data: bytes) -> str | None:
        """The tag of the object that is there if it holds ``data``."""
        response = self._send("GET", key)
        return _tag(response) if response.data == data else None

    def _written(self, data: bytes, metadata: Mapping[str, str] | None) -> dict[str, str]:
        noted = {_SHA256: hashlib.sha256(data).hexdigest(), **(metadata or {})}
        headers = {_META + name: value for name, value in noted.items()}
        return {"Content-Type": "application/octet-stream", **headers, **self._encryption}


def check_hash(head: Head, sha256: str) -> None:
    """Raises Damaged where an object was written with another hash than that of what arrived; parts have none."""
    if head.metadata.get(_SHA256, sha256) != sha256:
        raise Damaged("other bytes arrived than were stored")


def _head(response: BaseHTTPResponse) -> Head:
    named = {name.lower(): value for name, value in response.headers.items()}
    modified = parsedate_to_datetime(named["last-modified"]) if "last-modified" in named else datetime.now(UTC)
    return Head(
        size=int(named.get("content-length", 0)),
        tag=_tag(response),
        modified=modified.timestamp(),
        metadata={name.removeprefix(_META): value for name, value in named.items() if name.startswith(_META)},
    )


def _tag(response: BaseHTTPResponse) -> str:
    return response.headers.get("etag", "").strip('"')
