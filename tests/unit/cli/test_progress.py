import pytest

from services.cli.progress import clock, progress_words, state_words
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (14, "0:14"), (75, "1:15"), (3723, "1:02:03")])
def test_a_time_reads_like_a_clock(seconds: int, text: str):
    assert clock(seconds) == text


def test_progress_says_what_is_known():
    assert progress_words(pb.Progress()) == ""
    progress = pb.Progress(frames_done=12, frames_total=25)
    assert progress_words(progress) == "12/25 frames"
    progress.frames_per_second = 0.9
    progress.time_left.FromSeconds(14)
    assert progress_words(progress) == "12/25 frames, 0.9 a second, 0:14 left"


def test_looking_for_cuts_says_how_much_is_done():
    assert progress_words(pb.Progress(stage="cuts", stage_fraction=0.421)) == "42 %"


def test_every_state_has_a_word():
    words = {state_words(state) for state in pb.JobState.values()}
    assert len(words) == len(pb.JobState.values())
