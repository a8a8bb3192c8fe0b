"""What the gateway asks of an artifact store. Two kinds of objects: small records and large artifacts."""

import re
from collections.abc import AsyncGenerator, AsyncIterable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Protocol

_PART = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]{0,199}")


class Store(Protocol):
    """Objects by key, ``a/b/c``. Every write is atomic and durable when its call returns.

    Every method raises StoreUnavailable where the store doesn't answer. Methods that write artifacts raise StoreFull where they
    would use the space that is kept for records, so that states can still be written.
    """

    async def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        """Write a record and return its tag.

        Raises:
            AlreadyExists: ``if_absent`` and there is one.
            WrongState: the record's tag is not ``if_match`` any more.
        """

    async def get(self, key: str) -> tuple[bytes, str]:
        """A record and its tag. Raises NotFound."""

    async def size(self, key: str) -> int:
        """An object's size in bytes. Raises NotFound."""

    async def modified(self, key: str) -> float:
        """When an object was last written, or appended to; seconds since 1970. Raises NotFound."""

    async def keys(self, prefix: str) -> list[str]:
        """Keys that begin with ``prefix``, which ends with a slash; sorted."""

    async def names(self, prefix: str) -> list[str]:
        """What follows ``prefix`` in keys of objects, finished or not, up to the next slash; each once, sorted."""

    async def delete(self, key: str) -> None:
        """Remove an object and what was appended to it; one that is absent is fine."""

    async def write(self, key: str, pieces: AsyncIterable[bytes]) -> int:
        """Write an artifact, replacing one that exists; returns its size. Raises StoreFull."""

    async def adopt(self, key: str, path: Path) -> None:
        """Make an artifact of a file that :meth:`scratch` gave; the file is gone afterwards. Raises StoreFull."""

    def read(self, key: str, offset: int = 0, length: int | None = None) -> AsyncGenerator[bytes, None]:
        """A part of an object in pieces. Raises NotFound."""

    def local_path(self, key: str) -> AbstractAsyncContextManager[Path]:
        """A file with the object's bytes, to be read inside the block. Raises NotFound."""

    def scratch(self, suffix: str) -> AbstractAsyncContextManager[Path]:
        """A path for a file of ours, removed at the block's end. Raises StoreFull."""

    async def append(self, key: str, offset: int, data: bytes) -> int:
        """Add bytes to an unfinished object that has ``offset`` bytes now; returns its new size.

        Until :meth:`settle` the bytes may be in this process only, and go with it.

        Raises:
            ChunkOutOfOrder: it has another size, or another process goes on with it.
            StoreFull: no space is left; what is there stays.
        """

    async def settle(self, key: str) -> None:
        """Make durable what was appended. Raises ChunkOutOfOrder where another process went on meanwhile."""

    async def appended(self, key: str) -> int:
        """Bytes appended to an object, finished or not."""

    async def finish(self, key: str) -> None:
        """Make an object of what was appended, an empty one of nothing; a second time changes nothing.

        Raises:
            ChunkOutOfOrder: another process went on meanwhile.
        """

    async def link(self, key: str, *, seconds: int, filename: str, media_type: str) -> str | None:
        """An address from which anybody can read an object for so long, under a name and a type; None: there is none.

        Raises:
            ValueError: ``seconds`` is not 1 to 604800, a week.
        """

    async def tidy(self) -> None:
        """Remove what processes left behind when they were killed: unfinished files of this machine, and what they tried out."""

    async def require_space(self, size_bytes: int = 0) -> None:
        """Raises StoreFull where ``size_bytes`` more don't fit."""


def check_key(key: str) -> None:
    """Raises ValueError for a key that could leave the store; keys are ours, so this is a bug."""
    if not all(_PART.fullmatch(part) and not part.endswith(".part") for part in key.split("/")):
        raise ValueError(f"{key!r} is not a key")
