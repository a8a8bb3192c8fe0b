"""The record of an object that is being appended to: its parts so far, and the bytes that are too few for one. Pure."""

import json
import secrets
from dataclasses import dataclass, field, replace

_SCHEMA_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """An unfinished object, as it is written down."""

    upload_id: str = ""
    """Of the object in parts; empty while everything is in the tail."""

    parts: tuple[tuple[int, str, int], ...] = ()
    """Number, tag and size of each part, in order."""

    next_part: int = 1
    """Number of the next part; below it there may be gaps."""

    tail: bytes = field(default=b"", repr=False)
    """Bytes after the last part."""

    @property
    def size(self) -> int:
        """Bytes in all."""
        return sum(size for _, _, size in self.parts) + len(self.tail)

    def with_part(self, tag: str, size: int) -> "Draft":
        """The draft with one more part, in place of its tail."""
        parts = (*self.parts, (self.next_part, tag, size))
        return replace(self, parts=parts, next_part=self.next_part + 1, tail=b"")

    def claimed(self) -> "Draft":
        """The draft of a new writer: the number that an earlier one may be sending just now is never used again."""
        return replace(self, next_part=self.next_part + 1)


def draft_to_bytes(draft: Draft) -> bytes:
    """A line of JSON, then the tail."""
    # The nonce makes two writers' equal drafts unequal: each must know which of them was written.
    head = {"schema_version": _SCHEMA_VERSION, "nonce": secrets.token_hex(8), "upload_id": draft.upload_id,
            "parts": draft.parts, "next_part": draft.next_part}  # fmt: skip
    return json.dumps(head).encode() + b"\n" + draft.tail


def draft_from_bytes(data: bytes) -> Draft:
    """What :func:`draft_to_bytes` wrote."""
    line, _, tail = data.partition(b"\n")
    head = json.loads(line)
    parts = tuple((number, tag, size) for number, tag, size in head["parts"])
    return Draft(upload_id=head["upload_id"], parts=parts, next_part=head["next_part"], tail=tail)
