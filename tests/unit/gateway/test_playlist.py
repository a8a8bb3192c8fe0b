from services.gateway.playlist import PlayablePart, init_bytes, playlist

PART = PlayablePart(uri="0.mp4", duration_s=1.92, size_bytes=1000, init_bytes=700)


def box(kind: bytes, size: int) -> bytes:
    return size.to_bytes(4) + kind + bytes(size - 8)


def test_each_part_is_mapped_by_its_own_beginning():
    text = playlist(
        [PART, PlayablePart(uri="1.mp4", duration_s=0.5, size_bytes=900, init_bytes=700)], longest_s=1.92, complete=True
    )
    assert text.splitlines() == [
        "#EXTM3U",
        "#EXT-X-VERSION:7",
        "#EXT-X-TARGETDURATION:2",
        "#EXT-X-MEDIA-SEQUENCE:0",
        "#EXT-X-PLAYLIST-TYPE:EVENT",
        "#EXT-X-INDEPENDENT-SEGMENTS",
        '#EXT-X-MAP:URI="0.mp4",BYTERANGE="700@0"',
        "#EXTINF:1.920000,",
        "#EXT-X-BYTERANGE:300@700",
        "0.mp4",
        '#EXT-X-MAP:URI="1.mp4",BYTERANGE="700@0"',
        "#EXTINF:0.500000,",
        "#EXT-X-BYTERANGE:200@700",
        "1.mp4",
        "#EXT-X-ENDLIST",
    ]


def test_a_playlist_that_grows_has_no_end():
    assert "#EXT-X-ENDLIST" not in playlist([PART], longest_s=1.92, complete=False)


def test_the_beginning_of_a_segment_ends_where_its_first_fragment_begins():
    assert init_bytes(box(b"ftyp", 24) + box(b"moov", 500) + box(b"moof", 80)) == 524
    assert init_bytes(box(b"ftyp", 24)) == 0
    assert init_bytes(b"") == 0
    assert init_bytes(b"\0\0\0\0ftyp" + bytes(50)) == 0
