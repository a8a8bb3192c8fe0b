"""Orientation and colour profile of a picture, as its file stores them, and a profile put into one. Pure: bytes in, bytes out.

PyAV can't be asked: it fails on frames that carry EXIF, and writes no profiles.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

PROFILE_KINDS = frozenset({"png", "jpg"})
"""Formats that a profile can be put into here."""

_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_PNG_HEADER_BYTES = 33
"""Signature and IHDR, after which a profile may stand."""

_EXIF, _ICC = b"Exif\0\0", b"ICC_PROFILE\0"
_JPEG_PART_BYTES = 65533 - len(_ICC) - 2
_JPEG_MOST_PARTS = 255
_MAX_PROFILE_BYTES = 8 << 20
_ORIENTATION, _PROFILE = 0x0112, 0x8773
_SHORT_TYPE = 3
_MOST_TAGS = 4096

_ONE = 1 << 16
# How x and y become those that are seen: (a, b, c, d) of x' = a · x + c · y and y' = b · x + d · y, by EXIF's number.
_TURNS = {
    2: (-1, 0, 0, 1), 3: (-1, 0, 0, -1), 4: (1, 0, 0, -1), 5: (0, 1, 1, 0), 6: (0, 1, -1, 0), 7: (0, -1, -1, 0), 8: (0, -1, 1, 0),
}  # fmt: skip
_ROTATIONS = {3: 180, 5: 270, 6: 270, 7: 90, 8: 90}


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureTags:
    """What a picture's file says beside its pixels."""

    orientation: int = 1
    """EXIF's number, 1 to 8; 1: upright."""

    profile: bytes = b""
    """ICC; empty: none."""

    @property
    def display_matrix(self) -> tuple[int, ...]:
        """As a video container would say it; empty: upright."""
        if self.orientation not in _TURNS:
            return ()
        a, b, c, d = _TURNS[self.orientation]
        return (a * _ONE, b * _ONE, 0, c * _ONE, d * _ONE, 0, 0, 0, 1 << 30)

    @property
    def rotation(self) -> int:
        """Degrees counter-clockwise, mirroring left aside."""
        return _ROTATIONS.get(self.orientation, 0)


def picture_tags(data: bytes) -> PictureTags:
    """The tags of a PNG, JPEG, WebP or TIFF; what can't be read of them is left out."""
    if data[:8] == _PNG:
        parts = dict(_png_chunks(data))
        return PictureTags(orientation=_orientation(parts.get(b"eXIf", b"")), profile=_png_profile(parts.get(b"iCCP", b"")))
    if data[:2] == _JPEG:
        segments = list(_jpeg_segments(data))
        exif = next((content for marker, content in segments if marker == 0xE1 and content.startswith(_EXIF)), b"")
        return PictureTags(orientation=_orientation(exif), profile=_jpeg_profile(segments))
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        parts = dict(_riff_chunks(data))
        return PictureTags(orientation=_orientation(parts.get(b"EXIF", b"")), profile=parts.get(b"ICCP", b""))
    return PictureTags(orientation=_orientation(data), profile=_tiff_tags(data).get(_PROFILE, b""))


def with_profile(data: bytes, kind: str, profile: bytes) -> bytes:
    """The picture with the profile; unchanged for formats that are not in PROFILE_KINDS, and where the profile is too large."""
    if kind == "png":
        return data[:_PNG_HEADER_BYTES] + _chunk(b"iCCP", b"icc\0\0" + zlib.compress(profile)) + data[_PNG_HEADER_BYTES:]
    parts = [profile[i : i + _JPEG_PART_BYTES] for i in range(0, len(profile), _JPEG_PART_BYTES)]
    if kind != "jpg" or len(parts) > _JPEG_MOST_PARTS:
        return data
    segments = [
        b"\xff\xe2" + struct.pack(">H", 2 + len(_ICC) + 2 + len(part)) + _ICC + bytes([number, len(parts)]) + part
        for number, part in enumerate(parts, 1)
    ]
    place = _after_jfif(data)
    return data[:place] + b"".join(segments) + data[place:]


def _png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = len(_PNG)
    while place + 8 <= len(data):
        size, name = struct.unpack(">I4s", data[place : place + 8])
        # Both kinds that count stand before the pixels.
        if name == b"IDAT":
            return
        yield name, data[place + 8 : place + 8 + size]
        place += 12 + size


def _png_profile(chunk: bytes) -> bytes:
    _, _, rest = chunk.partition(b"\0")
    try:
        return zlib.decompressobj().decompress(rest[1:], _MAX_PROFILE_BYTES)
    except zlib.error:
        return b""


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    place = len(_JPEG)
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, size = data[place + 1], int.from_bytes(data[place + 2 : place + 4], "big")
        # The picture's own data begin.
        if marker == 0xDA or size < 2:
            return
        yield marker, data[place + 4 : place + 2 + size]
        place += 2 + size


def _jpeg_profile(segments: list[tuple[int, bytes]]) -> bytes:
    head = len(_ICC) + 2
    parts = {c[len(_ICC)]: c[head:] for marker, c in segments if marker == 0xE2 and c.startswith(_ICC) and len(c) > head}
    return b"".join(parts[number] for number in sorted(parts))


def _riff_chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    place = 12
    while place + 8 <= len(data):
        name, size = struct.unpack("<4sI", data[place : place + 8])
        yield name, data[place + 8 : place + 8 + size]
        place += 8 + size + size % 2


def _orientation(exif: bytes) -> int:
    found = _tiff_tags(exif.removeprefix(_EXIF)).get(_ORIENTATION, b"\1")
    number = int.from_bytes(found, "little")
    return number if number in _TURNS else 1


def _tiff_tags(data: bytes) -> dict[int, bytes]:
    """Orientation, as a byte, and profile from the first directory of a TIFF."""
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        return {}
    tags: dict[int, bytes] = {}
    try:
        (start,) = struct.unpack(order + "I", data[4:8])
        (count,) = struct.unpack(order + "H", data[start : start + 2])
        for i in range(min(count, _MOST_TAGS)):
            place = start + 2 + 12 * i
            tag, kind, number, value = struct.unpack(order + "HHII", data[place : place + 12])
            if tag == _ORIENTATION and kind == _SHORT_TYPE:
                tags[tag] = bytes([struct.unpack(order + "H", data[place + 8 : place + 10])[0] & 0xFF])
            if tag == _PROFILE and number <= _MAX_PROFILE_BYTES:
                tags[tag] = data[value : value + number]
    except struct.error:
        # It ends early: what was found until then counts.
        return tags
    return tags


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _after_jfif(data: bytes) -> int:
    """Behind the picture's start and, where it is there, the JFIF segment, which must be the first."""
    return 4 + int.from_bytes(data[4:6], "big") if data[2:4] == b"\xff\xe0" else 2
