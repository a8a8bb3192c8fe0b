import random
import struct
import zlib

import pytest

from services.gateway.container.tags import PROFILE_KINDS, PictureTags, picture_tags, with_profile

PROFILE = bytes(range(256)) * 600


def exif(orientation: int, order: str = "<") -> bytes:
    """A TIFF block with nothing but an orientation."""
    head = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, 1)
    return head + struct.pack(order + "HHIHHI", 0x0112, 3, 1, orientation, 0, 0)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(*chunks: bytes) -> bytes:
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", bytes(13)) + b"".join(chunks) + chunk(b"IDAT", b"x") + chunk(b"IEND", b"")


def jpeg(*segments: tuple[int, bytes]) -> bytes:
    parts = [bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content for marker, content in segments]
    return b"\xff\xd8" + b"".join(parts) + b"\xff\xda\0\x02data\xff\xd9"


def webp(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(c)) + c + b"\0" * (len(c) % 2) for name, c in chunks)
    return b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body


def tiff(orientation: int) -> bytes:
    entries = struct.pack("<HHIHHI", 0x0112, 3, 1, orientation, 0, 0)[:12] + struct.pack("<HHII", 0x8773, 7, len(PROFILE), 64)
    return (b"II*\0" + struct.pack("<IH", 8, 2) + entries).ljust(64, b"\0") + PROFILE


@pytest.mark.parametrize(
    "data",
    [
        png(chunk(b"iCCP", b"name\0\0" + zlib.compress(PROFILE)), chunk(b"eXIf", exif(6))),
        png(chunk(b"iCCP", b"name\0\0" + zlib.compress(PROFILE)), chunk(b"eXIf", exif(6, ">"))),
        jpeg(
            (0xE0, b"JFIF\0" + bytes(9)), (0xE1, b"Exif\0\0" + exif(6)), (0xE2, b"ICC_PROFILE\0\x02\x03" + PROFILE[60000:120000]),
            (0xE2, b"ICC_PROFILE\0\x01\x03" + PROFILE[:60000]), (0xE2, b"ICC_PROFILE\0\x03\x03" + PROFILE[120000:]),
        ),
        webp((b"VP8X", bytes(10)), (b"ICCP", PROFILE), (b"VP8 ", b"odd"), (b"EXIF", exif(6))),
        tiff(6),
    ],
    ids=["png", "png, big endian", "jpeg", "webp", "tiff"],
)  # fmt: skip
def test_orientation_and_profile_are_found(data: bytes):
    assert picture_tags(data) == PictureTags(orientation=6, profile=PROFILE)


@pytest.mark.parametrize("data", [b"", png(), jpeg(), webp(), exif(9), exif(0), b"II", b"GIF89a", jpeg((0xE1, b"Exif\0\0II"))])
def test_a_picture_without_them_is_upright_and_has_none(data: bytes):
    assert picture_tags(data) == PictureTags()


@pytest.mark.parametrize("kind", sorted(PROFILE_KINDS))
@pytest.mark.parametrize("data", [png(), jpeg(), jpeg((0xE0, b"JFIF\0" + bytes(9)))], ids=["png", "jpeg", "jfif"])
def test_a_profile_that_is_put_in_is_found_again(kind: str, data: bytes):
    if (kind == "png") == data.startswith(b"\x89PNG"):
        written = with_profile(data, kind, PROFILE)
        assert picture_tags(written).profile == PROFILE
        assert len(written) > len(data)


def test_jfif_stays_the_first_segment():
    written = with_profile(jpeg((0xE0, b"JFIF\0" + bytes(9))), "jpg", b"p")
    assert written[2:4] == b"\xff\xe0"


def test_a_profile_that_no_jpeg_can_hold_is_left_out():
    assert with_profile(jpeg(), "jpg", bytes(17_000_000)) == jpeg()


def test_a_packed_profile_cannot_fill_the_memory():
    bomb = png(chunk(b"iCCP", b"name\0\0" + zlib.compress(bytes(64 << 20))))
    assert len(picture_tags(bomb).profile) <= 8 << 20


def test_damaged_pictures_give_tags_or_none_but_no_error():
    chance = random.Random(1)
    whole = [png(chunk(b"eXIf", exif(6))), jpeg((0xE1, b"Exif\0\0" + exif(6))), webp((b"EXIF", exif(6))), tiff(6)[:200]]
    for data in whole:
        for _ in range(300):
            damaged = bytearray(data[: chance.randrange(len(data) + 1)])
            for _ in range(min(3, len(damaged))):
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
            assert picture_tags(bytes(damaged)).orientation in range(1, 9)
