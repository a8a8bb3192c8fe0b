"""An HLS media playlist (RFC 8216) of segments that are each a whole fragmented MP4. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayablePart:
    """One stored segment."""

    uri: str
    """Relative to the playlist."""

    duration_s: float
    """Of its frames."""

    size_bytes: int
    """Of the file."""

    init_bytes: int
    """Of its beginning, up to the first fragment: what a player needs before any frame."""


def playlist(parts: Sequence[PlayablePart], *, longest_s: float, complete: bool) -> str:
    """The playlist; no part is longer than ``longest_s``. The parts' clock is the source's, so it goes on."""
    lines = [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        f"#EXT-X-TARGETDURATION:{max(1, math.ceil(longest_s))}",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        "#EXT-X-INDEPENDENT-SEGMENTS",
    ]
    for part in parts:
        lines += [
            f'#EXT-X-MAP:URI="{part.uri}",BYTERANGE="{part.init_bytes}@0"',
            f"#EXTINF:{part.duration_s:.6f},",
            f"#EXT-X-BYTERANGE:{part.size_bytes - part.init_bytes}@{part.init_bytes}",
            part.uri,
        ]
    lines += ["#EXT-X-ENDLIST"] if complete else []
    return "\n".join(lines) + "\n"


def init_bytes(head: bytes) -> int:
    """Size of what goes before the first fragment of a fragmented MP4 that begins with ``head``; 0 where none is found."""
    at = 0
    while at + 8 <= len(head):
        size, kind = int.from_bytes(head[at : at + 4]), head[at + 4 : at + 8]
        if kind in (b"moof", b"styp", b"sidx"):
            return at
        if size < 8:
            return 0
        at += size
    return 0
