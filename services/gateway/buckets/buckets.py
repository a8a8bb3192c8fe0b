"""Objects in users' buckets, read and written with the operator's key."""

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Iterator

from services.common.errors import InvalidInput, NotFound, ServiceError, Unavailable
from services.gateway.buckets.rules import Place
from services.gateway.buckets.settings import BucketSettings
from services.gateway.sources.remote import Stream
from services.gateway.store.s3.calls import Calls
from services.gateway.store.s3.client import connect
from services.gateway.store.s3.faults import Kind, kind_of
from services.gateway.store.s3.objects import Objects
from services.gateway.store.s3.parts import in_parts, send
from services.gateway.store.s3.settings import SMALLEST_PART_BYTES

_LASTING = frozenset({Kind.REFUSED, Kind.NO_BUCKET, Kind.OTHER})


class Buckets:
    """The buckets of one S3 server."""

    def __init__(self, settings: BucketSettings) -> None:
        """Raises SettingsError where a file can't be used."""
        server = settings.server()
        self._client = connect(server)
        self._calls = Calls(threads=server.connections, tries=server.tries, retry_s=server.retry_s)

    def close(self) -> None:
        """Begin no more requests."""
        self._calls.close()

    async def check_source(self, place: Place, field: str) -> None:
        """Raises InvalidInput where there is no such object, or it may not be read; Unavailable."""
        with _in_words(place, field):
            await self._objects(place).head(place.key)

    async def check_result(self, place: Place, field: str) -> None:
        """Raises InvalidInput where the object may not be written; Unavailable. Leaves nothing."""
        objects = self._objects(place)
        with _in_words(place, field):
            await objects.abort(place.key, await objects.begin(place.key))

    async def write(self, place: Place, pieces: AsyncGenerator[bytes, None], field: str) -> None:
        """Write an object, replacing one that exists. Raises InvalidInput where it may not be written; Unavailable."""
        with _in_words(place, field):
            async with contextlib.aclosing(in_parts(pieces, SMALLEST_PART_BYTES)) as parts:
                await send(self._objects(place), place.key, parts)

    @contextlib.asynccontextmanager
    async def open(self, place: Place, offset: int, tag: str, field: str) -> AsyncIterator[Stream]:
        """An object from ``offset`` on, where it still has ``tag``; else from its beginning. Raises InvalidInput, Unavailable."""
        objects = self._objects(place)
        with _in_words(place, field):
            head = await objects.head(place.key)
        start = offset if head.tag == tag else 0
        async with contextlib.aclosing(objects.read(place.key, start, tag=head.tag)) as pieces:
            yield Stream(offset=start, size_bytes=head.size, tag=head.tag, pieces=_told(pieces, place, field))

    def _objects(self, place: Place) -> Objects:
        return Objects(self._client, self._calls, bucket=place.bucket, prefix="", encryption={})


class BucketSource:
    """See :class:`Remote`."""

    def __init__(self, buckets: Buckets, place: Place, field: str) -> None:
        self._buckets = buckets
        self._place = place
        self._field = field

    def open(self, offset: int, tag: str) -> contextlib.AbstractAsyncContextManager[Stream]:
        """See :class:`Remote`."""
        return self._buckets.open(self._place, offset, tag, self._field)


async def _told(pieces: AsyncIterator[bytes], place: Place, field: str) -> AsyncIterator[bytes]:
    with _in_words(place, field):
        async for piece in pieces:
            yield piece


@contextlib.contextmanager
def _in_words(place: Place, field: str) -> Iterator[None]:
    try:
        yield
    except NotFound as error:
        raise InvalidInput(f"There is no object {place.uri}; upload it there, or give another one.", field=field) from error
    except InvalidInput:
        raise
    except ServiceError as error:
        if error.__cause__ is not None and kind_of(error.__cause__) in _LASTING:
            raise InvalidInput(
                f"{place.uri} can't be used: the object store refuses it, or has no such bucket.", field=field
            ) from error
        raise Unavailable(f"{place.uri} can't be reached: {error.message}", retry_after_s=error.retry_after_s) from error
