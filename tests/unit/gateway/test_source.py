from fractions import Fraction

import pytest

from services.common.errors import InvalidVideo, NewerRelease
from services.gateway.source import (
    OtherStream,
    index_from_json,
    index_packets,
    index_to_json,
    info_fields,
    info_from_fields,
)
from tests.unit.gateway.examples import index, info, packet

# Decoding order I P B B, as encoders make it.
GOP = [packet(0, -2, keyframe=True), packet(3, -1), packet(1, 0), packet(2, 1)]


def test_frames_are_the_packets_by_their_time_stamps():
    found = index_packets(GOP, info(), 0)
    assert (found.pts, found.by_order, found.last_duration) == ((0, 1, 2, 3), False, 1)


def test_frames_that_are_not_shown_are_no_frames():
    hidden = [packet(-1, -3, keyframe=True, shown=False), *GOP]
    assert index_packets(hidden, info(), 0).pts == (0, 1, 2, 3)


def test_frames_before_the_first_keyframe_are_left_out_and_that_is_said():
    found = index_packets([packet(-2, -4), packet(-1, -3), *GOP], info(), 0)
    assert found.pts == (0, 1, 2, 3)
    assert "2 frames before the first keyframe" in found.warnings[0]


def test_leading_frames_of_an_open_gop_at_the_beginning_are_left_out():
    found = index_packets([packet(2, 0, keyframe=True), packet(0, 1), packet(1, 2), packet(3, 3)], info(), 0)
    assert found.pts == (2, 3)


def test_frames_are_found_from_the_keyframe_at_or_before_them():
    # An open GOP: the second keyframe is decoded before two frames that are shown before it.
    packets = [*GOP, packet(6, 2, keyframe=True), packet(4, 3), packet(5, 4), packet(7, 5)]
    found = index_packets(packets, info(), 0)
    assert [found.keyframe_before(f).packet for f in range(8)] == [0, 0, 0, 0, 0, 0, 4, 4]
    assert found.keyframe_after(1) == found.keyframes[1]
    assert found.keyframe_after(7) is None


def test_packets_without_time_stamps_are_counted():
    packets = [packet(None, keyframe=True), packet(None), packet(None)]
    found = index_packets(packets, info(time_base=Fraction(1, 50)), 0)
    assert (found.pts, found.by_order) == ((0, 1, 2), True)


def test_decoding_times_stand_in_where_presentation_times_are_missing():
    found = index_packets([packet(None, 10, keyframe=True), packet(None, 12), packet(None, 15)], info(), 0)
    assert (found.pts, found.by_order) == ((10, 12, 15), True)


def test_equal_time_stamps_are_told_apart_by_a_tick():
    found = index_packets([packet(0, keyframe=True), packet(0), packet(5)], info(), 0)
    assert (found.pts, found.by_order) == ((0, 1, 5), True)
    assert "the same time stamp" in found.warnings[0]


def test_a_stream_whose_stamps_are_guesses_is_counted():
    assert index_packets(GOP, info(stamped=False), 0).by_order


def test_a_packet_that_broke_off_at_the_end_is_no_frame():
    found = index_packets([*GOP, packet(4, 2, corrupt=True)], info(frames_declared=9), 0)
    assert found.frames == 4
    assert "4 of 9 frames are there" in found.warnings[0]


def test_a_file_that_ends_before_its_announced_length_says_so():
    found = index_packets(GOP, info(container="matroska,webm", duration_s=12.0), 6.1)
    assert "6.1 of 12.0 s" in found.warnings[0]


@pytest.mark.parametrize(
    ("packets", "text"),
    [
        ([], "without a single frame"),
        ([packet(0), packet(1)], "without a single frame"),
        ([packet(0, keyframe=True, shown=False)], "none of its frames is shown"),
        ([packet(100, keyframe=True), packet(0, 0)], "clock jumps back"),
    ],
)
def test_a_stream_without_usable_frames_is_refused(packets: list, text: str):
    with pytest.raises(InvalidVideo, match=text):
        index_packets(packets, info(), 0)


def test_the_end_of_a_frame_is_the_beginning_of_the_next():
    found = index_packets([packet(0, keyframe=True), packet(7), packet(9, duration=4)], info(), 0)
    assert [found.end_of(f) for f in range(3)] == [7, 9, 13]


def test_an_index_is_read_back_as_it_was_written():
    assert index_from_json(index_to_json(index(7))) == index(7)
    with pytest.raises(NewerRelease, match="schema version 3"):
        index_from_json(index_to_json(index(7)).replace(b'"schema_version": 1', b'"schema_version": 3'))


def test_what_a_file_says_of_itself_survives_json():
    full = info(
        others=(OtherStream(index=1, kind="audio", codec="aac"),), display_matrix=(0, 1, 2), sample_aspect_ratio=Fraction(4, 3),
        side_data={"palette": b"\x00"}, rotation=90,
    )  # fmt: skip
    assert info_from_fields(info_fields(full)) == full
