import pytest

from services.common.errors import InvalidVideo
from services.inference.video.match import FrameMatcher


def run(stamps: list[int], fed: list[tuple[int | None, str]], *, by_order: bool = False, context: int = 0) -> tuple[str, int]:
    matcher: FrameMatcher[str] = FrameMatcher(stamps, by_order=by_order, context_frames=context)
    found = [kept for stamp, picture in fed for kept in matcher.feed(stamp, picture)]
    found += matcher.finish()
    return "".join(found), matcher.concealed_frames


def test_frames_with_the_plans_time_stamps_pass():
    assert run([0, 10, 25], [(0, "a"), (10, "b"), (25, "c")]) == ("abc", 0)


def test_frames_with_unknown_time_stamps_are_dropped():
    assert run([10, 20], [(0, "x"), (10, "a"), (15, "y"), (None, "z"), (20, "b"), (30, "w")]) == ("ab", 0)


def test_a_missing_frame_repeats_the_one_before():
    assert run([0, 10, 20, 30], [(0, "a"), (30, "d")]) == ("aaad", 2)


def test_a_missing_first_frame_repeats_the_next():
    assert run([0, 10, 20], [(20, "c")]) == ("ccc", 2)


def test_missing_frames_at_the_end_repeat_the_last():
    assert run([0, 10, 20], [(0, "a")]) == ("aaa", 2)


def test_a_frame_that_comes_too_late_is_dropped():
    assert run([0, 10, 20], [(10, "b"), (0, "a"), (10, "b"), (20, "c")]) == ("bbc", 1)


def test_by_order_counts_and_ignores_time_stamps():
    assert run([0, 10, 20], [(None, "a"), (99, "b"), (10, "c"), (11, "d")], by_order=True) == ("abc", 0)


def test_concealed_context_is_not_counted():
    assert run([0, 10, 20], [(20, "c")], context=1) == ("ccc", 1)


@pytest.mark.parametrize("by_order", [False, True])
def test_not_a_single_frame_is_an_error_in_words(by_order: bool):
    with pytest.raises(InvalidVideo, match=r"None of the 2 frames .* can be decoded"):
        run([0, 10], [], by_order=by_order)


def test_what_is_not_wanted_need_not_be_converted():
    matcher: FrameMatcher[str] = FrameMatcher([10, 20], by_order=False, context_frames=0)
    assert [matcher.wants(stamp) for stamp in (None, 0, 10, 15, 20, 21)] == [False, False, True, False, True, False]
    assert not matcher.complete
    assert [list(matcher.feed(10, "a")), list(matcher.feed(20, "b"))] == [["a"], ["b"]]
    assert matcher.complete
    assert not matcher.wants(20)
