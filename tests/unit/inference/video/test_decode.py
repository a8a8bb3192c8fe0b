import itertools
from dataclasses import replace

import numpy as np
import pytest
from av.video.frame import VideoFrame

from services.common.errors import InvalidVideo
from services.common.media import Packet
from services.inference.video.decode import Decoder
from tests.unit.inference.clips import Clip, make_clip, read_clip


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(make_clip(frames=12, options={"bf": "2", "g": "6", "crf": "8"}))


def decode(clip: Clip, packets: list[Packet] | None = None) -> list[VideoFrame]:
    decoder = Decoder(clip.codec)
    frames = [f for p in (clip.packets if packets is None else packets) for f in decoder.frames(p)]
    return [*frames, *decoder.finish()]


def test_packets_become_frames_in_the_order_in_which_they_are_shown(clip: Clip):
    frames = decode(clip)
    assert [p.pts for p in clip.packets] != list(clip.stamps)
    assert [f.pts for f in frames] == list(clip.stamps)
    assert all(np.array_equal(f.to_ndarray(format="rgb24"), p) for f, p in zip(frames, clip.pictures, strict=True))


@pytest.mark.parametrize(
    ("codec", "pixel_format", "container"),
    [
        ("libx265", "yuv420p10le", "mp4"),
        ("libvpx-vp9", "yuv420p", "matroska"),
        ("mpeg4", "yuv420p", "avi"),
        ("mjpeg", "yuvj420p", "mov"),
        ("prores_ks", "yuv422p10le", "mov"),
        ("ffv1", "bgr0", "matroska"),
    ],
)
def test_other_codecs(codec: str, pixel_format: str, container: str):
    options = {"libx265": {"x265-params": "log-level=none"}, "mjpeg": {"strict": "unofficial"}}.get(codec, {"threads": "1"})
    clip = read_clip(make_clip(frames=4, codec=codec, pixel_format=pixel_format, container=container, options=options))
    frames = decode(clip)
    assert len(frames) == 4
    assert np.array_equal(frames[3].to_ndarray(format="rgb24"), clip.pictures[3])


def test_decoding_starts_at_a_keyframe_in_the_middle(clip: Clip):
    start = [i for i, p in enumerate(clip.packets) if p.keyframe][1]
    frames = decode(clip, list(clip.packets[start:]))
    assert [f.pts for f in frames] == list(clip.stamps[6:])


def test_a_damaged_packet_costs_its_own_frames_only(clip: Clip):
    packets = list(clip.packets)
    packets[8] = replace(packets[8], data=b"\xff" * len(packets[8].data))
    stamps = [f.pts for f in decode(clip, packets)]
    assert set(clip.stamps[:6]) <= set(stamps) <= set(clip.stamps)


def test_garbage_gives_no_frames_and_no_error(clip: Clip):
    garbage = [replace(p, data=bytes(itertools.islice(itertools.cycle(range(256)), 500))) for p in clip.packets]
    assert decode(clip, garbage) == []


def test_a_packet_without_data_does_not_end_the_stream(clip: Clip):
    packets = [replace(clip.packets[0], data=b""), *clip.packets]
    assert len(decode(clip, packets)) == 12


def test_new_stream_headers_on_the_way_are_used(clip: Clip):
    other = read_clip(make_clip(frames=3, width=64, height=48))
    turn = replace(other.packets[0], side_data={"new_extradata": other.codec.extradata, "unheard_of": b"x"})
    frames = decode(clip, [*clip.packets, turn, *other.packets[1:]])
    assert [(f.width, f.height) for f in frames[-3:]] == [(64, 48)] * 3


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"codec": "no_such_codec"}, "no decoder 'no_such_codec'"),
        ({"codec": "aac"}, "no video codec"),
        ({"pixel_format": "no_such_format"}, "refuses the stream's header"),
    ],
)
def test_a_stream_that_nothing_decodes_is_refused_in_words(clip: Clip, changes: dict[str, str], words: str):
    with pytest.raises(InvalidVideo, match=words):
        Decoder(replace(clip.codec, **changes))


def test_frames_far_larger_than_the_stream_says_are_not_decoded():
    large = read_clip(make_clip(frames=2, width=1280, height=1024))
    small = replace(large, codec=replace(large.codec, width=64, height=64))
    assert decode(large)
    assert decode(small) == []
