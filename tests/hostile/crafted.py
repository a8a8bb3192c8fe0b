"""Files made by somebody who means harm: they refer to other files, lie about themselves, or unpack to far more than they are."""

import io
import itertools
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.clips import make


def crafted(clip: bytes, canary: Path, url: str) -> Iterator[tuple[str, bytes]]:
    """Name and bytes of each. ``clip`` is a good MP4, ``canary`` a good video that none of them may open, ``url`` likewise."""
    for name, text in _references(str(canary), url):
        yield name, text.encode()
    yield from _boxes(clip, str(canary))
    yield from _archives(canary)
    yield from _matroska()
    yield from _pictures()
    yield from _others()


def _references(path: str, url: str) -> Iterator[tuple[str, str]]:
    name = Path(path).name
    protocols = (f"file:{path}", f"file://{path}", url, f"concat:{path}", f"subfile,,start,0,end,0,,:{path}")
    for number, place in enumerate((path, name, f"./{name}", *protocols)):
        yield f"ffconcat {number}", f"ffconcat version 1.0\nfile '{place}'\n"
        yield f"hls {number}", f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{place}\n#EXT-X-ENDLIST\n"
        yield f"hls key {number}", f'#EXTM3U\n#EXT-X-KEY:METHOD=AES-128,URI="{place}"\n#EXTINF:1,\n{place}\n#EXT-X-ENDLIST\n'
        yield f"hls map {number}", f'#EXTM3U\n#EXT-X-MAP:URI="{place}"\n#EXTINF:1,\n{place}\n#EXT-X-ENDLIST\n'
        yield (
            f"dash {number}",
            (
                '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period><AdaptationSet>'
                f'<Representation id="a" bandwidth="1"><BaseURL>{place}</BaseURL></Representation></AdaptationSet></Period></MPD>'
            ),
        )
        yield (
            f"sdp {number}",
            f"v=0\no=- 0 0 IN IP4 127.0.0.1\ns=-\nc=IN IP4 127.0.0.1\na=control:{place}\nm=video 5004 RTP/AVP 96\n",
        )
        yield f"reference movie {number}", f"[Reference]\nRef1={place}\n"
        yield f"m3u {number}", f"{place}\n"
        yield f"smil {number}", f'<smil><body><video src="{place}"/></body></smil>'
        yield f"xspf {number}", f"<playlist><trackList><track><location>{place}</location></track></trackList></playlist>"
        yield f"svg {number}", f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{place}" width="64" height="64"/></svg>'
        yield f"entity {number}", f'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY x SYSTEM "{place}">]><MPD>&x;</MPD>'
        yield f"filter script {number}", f"movie={place}[out0]"
        yield f"subtitles {number}", f"1\n00:00:00,000 --> 00:00:01,000\n<img src='{place}'>\n"
        yield f"image pattern {number}", f"{place}%04d.png"
        yield f"bluray {number}", f"bluray:{place}"


def _boxes(clip: bytes, path: str) -> Iterator[tuple[str, bytes]]:
    """MP4s whose boxes lie."""

    def atom(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data) + 8) + kind + data

    deep = b""
    for _ in range(5000):
        deep = atom(b"moov", deep)
    yield "deep boxes", clip[:32] + deep
    yield "deep boxes in front", atom(b"ftyp", b"isomiso2") + deep + clip[32:]
    inside = atom(b"dref", b"\0\0\0\0\0\0\0\1" + atom(b"url ", b"\0\0\0\1"))
    for kind, target in itertools.product((b"alis", b"url ", b"rsrc"), (path, f"file://{path}")):
        outside = atom(b"dref", b"\0\0\0\0\0\0\0\1" + atom(kind, b"\0\0\0\0" + target.encode() + b"\0"))
        yield f"data of {kind!r} {target[:5]}", clip.replace(inside, outside, 1)
    yield "size 0 everywhere", clip.replace(b"\x00\x00\x00\x08", b"\x00\x00\x00\x00")
    yield "64-bit sizes", atom(b"ftyp", b"isom") + struct.pack(">I4sQ", 1, b"moov", 2**63 - 1) + clip
    at = clip.index(b"stts") + 8
    yield "a billion samples", clip[:at] + struct.pack(">III", 1, 2**31 - 1, 1) + clip[at + 12 :]
    for name, word, value in (("no time base", b"mdhd", 0), ("huge time base", b"mdhd", 2**32 - 1)):
        at = clip.index(word) + 16
        yield name, clip[:at] + struct.pack(">I", value) + clip[at + 4 :]
    at = clip.index(b"tkhd") - 4
    moov = clip.index(b"moov") - 4
    track = clip[clip.index(b"trak") - 4 :]
    track = track[: struct.unpack(">I", track[:4])[0]]
    header = clip[moov + 8 : clip.index(b"trak") - 4]
    for count in (1_000, 20_000):
        yield f"{count} tracks", clip[:moov] + atom(b"moov", header + track * count)
    at = clip.index(b"avc1") + 4 + 24
    for width, height in ((0, 0), (0, 48), (65535, 65535), (1, 65535)):
        yield f"{width}x{height}", clip[:at] + struct.pack(">HH", width, height) + clip[at + 4 :]


def _archives(canary: Path) -> Iterator[tuple[str, bytes]]:
    def zipped(fill: Callable[[zipfile.ZipFile], None]) -> bytes:
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            fill(archive)
        return target.getvalue()

    picture = make.png(1)
    names = (
        "../escaped.png",
        "/tmp/escaped.png",
        "..\\escaped.png",
        "a/../../escaped.png",
        "C:\\escaped.png",
        "a" * 9000 + ".png",
    )
    for name in names:
        yield f"zip path {name[:20]!r}", zipped(lambda z, name=name: z.writestr(name, picture))
    link = zipfile.ZipInfo("1.png")
    link.external_attr = 0o120777 << 16
    yield "zip link", zipped(lambda z: z.writestr(link, str(canary)))
    inner = zipped(lambda z: z.writestr("1.png", picture))
    yield "zip in zip", zipped(lambda z: z.writestr("1.zip", inner))
    yield "zip bomb", zipped(lambda z: z.writestr("1.png", bytes(400 << 20)))
    yield "zip of a bomb's header", zipped(lambda z: z.writestr("1.png", picture[:8] + bytes(300 << 20)))
    yield "zip with 66,000 entries", zipped(lambda z: [z.writestr(f"{i}.png", b"") for i in range(66_000)] and None)
    yield "zip of playlists", zipped(lambda z: z.writestr("1.png", f"#EXTM3U\n#EXTINF:1,\n{canary}\n#EXT-X-ENDLIST\n"))
    yield "zip of one name", zipped(lambda z: z.writestr("1.png", canary.read_bytes()))
    yield "zip of nothing", zipped(lambda z: None)
    whole = zipped(lambda z: [z.writestr(f"{i}.png", picture) for i in range(3)] and None)
    end = whole.index(b"PK\x05\x06")
    yield "zip with a lie about its entries", whole[:end] + whole[end : end + 8] + b"\xff\xff\xff\xff" + whole[end + 12 :]
    yield "zip with overlapping entries", whole.replace(struct.pack("<I", whole.index(b"PK\x03\x04", 1)), struct.pack("<I", 0))


def _matroska() -> Iterator[tuple[str, bytes]]:
    def element(name: bytes, data: bytes, size: int | None = None) -> bytes:
        return name + struct.pack(">Q", (len(data) if size is None else size) | 1 << 56) + data

    begin = element(b"\x1a\x45\xdf\xa3", element(b"\x42\x82", b"matroska"))
    deep = b""
    for _ in range(3000):
        deep = element(b"\x18\x53\x80\x67", deep)
    yield "deep elements", begin + deep
    track = element(b"\xae", element(b"\xd7", b"\x01") + element(b"\x83", b"\x01") + element(b"\x86", b"V_VP9"))
    for count in (1_000, 30_000):
        yield f"{count} mkv tracks", begin + element(b"\x18\x53\x80\x67", element(b"\x16\x54\xae\x6b", track * count))
    yield "endless element", begin + element(b"\x18\x53\x80\x67", b"", 2**56 - 2)
    tags = b"".join(element(b"\x67\xc8", element(b"\x45\xa3", b"N" * 900)) for _ in range(5_000))
    yield "many tags", begin + element(b"\x18\x53\x80\x67", element(b"\x12\x54\xc3\x67", element(b"\x73\x73", tags)))


def _pictures() -> Iterator[tuple[str, bytes]]:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    def png(width: int, height: int, *chunks: bytes) -> bytes:
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)) + b"".join(chunks)

    for size in ((0, 0), (2**31 - 1, 2**31 - 1), (1, 2**31 - 1), (30_000, 30_000)):
        yield f"png {size}", png(*size, chunk(b"IDAT", zlib.compress(bytes(1000))), chunk(b"IEND", b""))
    text = zlib.compress(bytes(200 << 20))
    yield (
        "png with packed text",
        png(64, 48, chunk(b"zTXt", b"a\0\0" + text), chunk(b"iCCP", b"a\0\0" + text), chunk(b"IEND", b"")),
    )
    yield (
        "gif of 65535x65535",
        b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0x80, 0, 0) + bytes(6) + b",\0\0\0\0\xff\xff\xff\xff\0\x02\0;",
    )
    yield "tiff in a circle", b"II*\0" + struct.pack("<I", 8) + struct.pack("<HHHIII", 1, 256, 4, 1, 64, 8)
    entries = b"".join(struct.pack("<HHII", tag, 4, 2**31, 8) for tag in range(256, 300))
    yield "tiff with huge counts", b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 44) + entries
    yield (
        "jpeg of 65535x65535",
        b"\xff\xd8\xff\xc0\0\x11\x08\xff\xff\xff\xff\x03" + b"\x01\x11\0\x02\x11\0\x03\x11\0" + b"\xff\xd9",
    )
    yield "webp with a huge chunk", b"RIFF\xff\xff\xff\xffWEBPVP8L\xff\xff\xff\xff" + bytes(100)


def _others() -> Iterator[tuple[str, bytes]]:
    packet = b"\x47\x40\x00\x10" + bytes(184)
    programs = [b"\x47" + struct.pack(">H", 0x4000 | pid) + b"\x10\x00\x02" + bytes(182) for pid in range(8191)]
    yield "ts of 8191 programs", b"".join(programs)
    yield "ts of empty packets", packet * 20_000
    yield "one byte", b"\0"
    yield "nothing", b""
    yield "avi in avi", b"RIFF\xff\xff\xff\x7fAVI LIST\xff\xff\xff\x7fhdrl" * 4000
    yield (
        "ogg of streams",
        b"".join(b"OggS\0\x02" + bytes(8) + struct.pack("<III", n, 0, 0) + b"\x01\x07\x80theora" for n in range(5_000)),
    )
    yield "flv of tags", b"FLV\x01\x05\0\0\0\x09\0\0\0\0" + b"\x12\xff\xff\xff\0\0\0\0\0\0\0" * 5_000
    yield "y4m of huge frames", b"YUV4MPEG2 W2147483647 H2147483647 F1:0\nFRAME\n" + bytes(1000)
    yield "nut of nothing", b"nut/multimedia container\0" + b"\xff" * 5_000
    yield "text", b"a" * 2_000_000
