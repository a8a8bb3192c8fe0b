import pytest
from google.protobuf import duration_pb2

from services.common import errors
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.ui.words import about, count, error_words, percent, progress_words, seconds_of, size_words, time_words


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0.0 s"),
        (0.04, "0.04 s"),
        (2.04, "2.0 s"),
        (9.9, "9.9 s"),
        (45.4, "45 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3900, "1 h 5 min"),
        (7200, "2 h"),
    ],
)
def test_a_length_of_time_is_as_exact_as_a_person_wants_it(seconds: float, words: str) -> None:
    assert time_words(seconds) == words


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "a moment"), (28.3, "about 28 s"), (240, "about 4 min"), (3900, "about 1 h 5 min")]
)
def test_a_prediction_is_rounded(seconds: float, words: str) -> None:
    assert about(seconds) == words


@pytest.mark.parametrize(
    ("size_bytes", "words"),
    [(0, "0 bytes"), (999, "999 bytes"), (1000, "1.0 kB"), (50_274, "50 kB"), (999_700, "1.0 MB"), (20 * 10**9, "20 GB")],
)
def test_a_size_has_a_unit_that_keeps_the_number_small(size_bytes: int, words: str) -> None:
    assert size_words(size_bytes) == words


def test_one_is_singular() -> None:
    assert (count(1, "frame"), count(0, "frame"), count(12_345, "frame")) == ("1 frame", "0 frames", "12,345 frames")


def test_progress_names_frames_speed_and_time_left() -> None:
    assert progress_words(running()) == "12 of 49 frames, 1.3 frames/s, about 28 s left"


def test_progress_leaves_out_what_is_not_known_yet() -> None:
    job = pb.Job(state=pb.JOB_STATE_RESTORING, progress=pb.Progress(stage="dit", frames_total=49))
    assert progress_words(job) == "0 of 49 frames"


def test_a_job_that_waits_says_for_what() -> None:
    job = pb.Job(state=pb.JOB_STATE_PENDING, progress=pb.Progress(stage="waiting"))
    assert progress_words(job) == "Waiting for a worker"


def test_a_job_that_looks_for_cuts_says_how_much_is_done() -> None:
    job = pb.Job(state=pb.JOB_STATE_PLANNING, progress=pb.Progress(stage="cuts"))
    assert progress_words(job) == "Looking for cuts"
    job.progress.stage_fraction = 0.421
    assert progress_words(job) == "Looking for cuts, 42 %"


def test_a_finished_job_says_how_long_it_took() -> None:
    result = pb.Result(frames=49, elapsed=duration_pb2.Duration(seconds=75))
    assert progress_words(pb.Job(state=pb.JOB_STATE_SUCCEEDED, result=result)) == "49 frames restored in 1 min 15 s"


def test_a_cancelled_job_says_how_far_it_came() -> None:
    job = running()
    job.state = pb.JOB_STATE_CANCELLED
    assert progress_words(job) == "12 of 49 frames were restored"
    assert progress_words(pb.Job(state=pb.JOB_STATE_CANCELLED)) == "No frame was restored"


def test_only_a_finished_job_is_at_a_hundred_percent() -> None:
    job = running()
    assert percent(job) == 24
    job.progress.frames_done = 49
    assert percent(job) == 99
    job.state = pb.JOB_STATE_SUCCEEDED
    assert percent(job) == 100
    assert percent(pb.Job()) == 0


def test_a_lost_connection_is_told_without_addresses() -> None:
    words = error_words(errors.Unavailable("failed to connect to all addresses; ipv4:10.0.0.7:50051"))
    assert "10.0.0.7" not in words
    assert "can't be reached" in words


def test_an_error_of_ours_keeps_its_sentence() -> None:
    assert "sign in" in error_words(errors.TokenMissing("This gateway lets in who shows a token."))
    assert error_words(errors.Unauthenticated("The token has expired.")) == "The token has expired."
    assert error_words(errors.WorkerUnavailable("No worker serves nano.")) == "No worker serves nano."


def test_a_duration_counts_its_nanoseconds() -> None:
    assert seconds_of(duration_pb2.Duration(seconds=2, nanos=500_000_000)) == 2.5


def running() -> pb.Job:
    job = pb.Job(state=pb.JOB_STATE_RESTORING)
    job.progress.CopyFrom(pb.Progress(stage="dit", frames_done=12, frames_total=49, frames_per_second=1.3))
    job.progress.time_left.FromMilliseconds(28_400)
    return job
