"""HTTP byte ranges (RFC 9110, section 14). Pure."""

import re
from dataclasses import dataclass

from services.common.errors import RangeOutOfBounds

_ONE_RANGE = re.compile(r"\s*bytes\s*=\s*([0-9]{0,18})\s*-\s*([0-9]{0,18})\s*", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class ByteRange:
    """A part of an object that exists."""

    offset: int
    """Bytes before it."""

    length: int
    """Bytes in it, at least 1."""

    def content_range(self, size_bytes: int) -> str:
        """The value of the header Content-Range for an object of ``size_bytes``."""
        return f"bytes {self.offset}-{self.offset + self.length - 1}/{size_bytes}"


def parse_range(header: str | None, size_bytes: int) -> ByteRange | None:
    """The part that ``header`` asks for, or None for the whole object.

    A header that is malformed, names several ranges, or larger ones than there are, is ignored, as the standard allows.

    Raises:
        RangeOutOfBounds: the part begins behind the end.
    """
    match = _ONE_RANGE.fullmatch(header or "")
    if match is None or match.group(1) == match.group(2) == "":
        return None
    first, last = match.groups()
    if not first:
        length = min(int(last), size_bytes)
        offset, end = size_bytes - length, size_bytes
    else:
        offset, end = int(first), min(int(last) + 1, size_bytes) if last else size_bytes
        if last and int(last) < offset:
            return None
    if offset >= size_bytes or end <= offset:
        raise RangeOutOfBounds(f"The file has {size_bytes:,} bytes; the part that was asked for begins behind its end.")
    return ByteRange(offset=offset, length=end - offset)
