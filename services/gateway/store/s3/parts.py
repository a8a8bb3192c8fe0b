"""Large objects in parts: how large each part is, and objects of a stream of bytes. Memory for two parts, whatever the size."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterable

from services.common.errors import NotFound, TooLarge
from services.gateway.store.s3.objects import Objects

_MOST_PARTS = 10_000
_PARTS_OF_A_SIZE = 2000


def part_size(number: int, smallest_bytes: int) -> int:
    """Bytes of part ``number``, the first being 1. They double now and then: S3 takes 10,000 parts, and small ones save memory.

    With 5 MiB for the smallest, 10,000 parts are 302 GiB, and 50 GiB take parts of 20 MiB.

    Raises:
        TooLarge: there is no such part.
    """
    if number > _MOST_PARTS:
        raise TooLarge("The object has more parts than S3 takes: begin another one, or set SEEDVR2_S3_PART_BYTES higher.")
    return smallest_bytes << ((number - 1) // _PARTS_OF_A_SIZE)


async def in_parts(pieces: AsyncIterable[bytes], smallest_bytes: int) -> AsyncGenerator[bytes, None]:
    """Pieces of any size put together to parts; at least one, the last one smaller."""
    number, part = 1, bytearray()
    async for piece in pieces:
        part += piece
        size = part_size(number, smallest_bytes)
        while len(part) >= size:
            yield bytes(part[:size])
            del part[:size]
            number += 1
            size = part_size(number, smallest_bytes)
    if part or number == 1:
        yield bytes(part)


async def send(objects: Objects, key: str, parts: AsyncGenerator[bytes, None]) -> int:
    """Write an object of parts, replacing one that exists; returns its size. What fails leaves nothing."""
    first = await anext(parts)
    second = await anext(parts, None)
    if second is None:
        await objects.put(key, first)
        return len(first)
    upload_id = await objects.begin(key)
    try:
        sent, size = list[tuple[int, str]](), 0
        async for part in _chain(first, second, parts):
            number = len(sent) + 1
            sent.append((number, await objects.part(key, upload_id, number, part)))
            size += len(part)
        await complete(objects, key, upload_id, sent, size)
    except BaseException:
        await asyncio.shield(asyncio.ensure_future(objects.abort(key, upload_id)))
        raise
    return size


async def complete(objects: Objects, key: str, upload_id: str, sent: list[tuple[int, str]], size: int) -> None:
    """Make an object of ``size`` bytes of parts that were sent, numbers with tags.

    Raises:
        NotFound: the parts are gone.
    """
    # Gone also means: an earlier try, whose answer was lost, made the object.
    with contextlib.suppress(NotFound):
        await objects.complete(key, upload_id, sent)
    if (await objects.head(key)).size != size:
        raise NotFound("The parts of an object are gone.")


async def _chain(first: bytes, second: bytes, rest: AsyncIterable[bytes]) -> AsyncGenerator[bytes, None]:
    yield first
    yield second
    async for part in rest:
        yield part
