import pytest

from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.ui.job_cards import (
    details,
    download_card,
    headline,
    live_picture,
    live_player,
    newest_frame,
    players,
    progress_card,
)
from services.ui.links import Links

LINKS = Links(root_path="")


def job(state: pb.JobState = pb.JOB_STATE_RESTORING, **progress: float | int | str) -> pb.Job:
    plan = pb.PlanSummary(source_width=64, source_height=48, width=128, height=96, frames=480, model="nano")
    values = {"stage": "dit", "frames_done": 100, "frames_total": 480, "segments_total": 10, **progress}
    return pb.Job(job_id="one", filename="a.mp4", state=state, plan=plan, progress=pb.Progress(**values))


def test_progress_is_told_to_screen_readers_too() -> None:
    card = progress_card(job())
    assert 'role="progressbar"' in card
    assert 'aria-valuenow="20"' in card
    assert "100 of 480 frames" in card


def test_the_stage_in_hand_is_marked() -> None:
    assert '<li class="sv-now" aria-current="step">Restoring</li>' in progress_card(job())


def test_a_job_without_a_worker_says_that_it_waits() -> None:
    assert "Waiting for a worker" in progress_card(job(stage="waiting"))


def test_a_failed_job_says_why_and_has_no_bar() -> None:
    failed = job(pb.JOB_STATE_FAILED)
    failed.failure.message = "The worker died <three> times."
    card = progress_card(failed)
    assert "The worker died &lt;three&gt; times." in card
    assert "progressbar" not in card


def test_notes_and_warnings_are_shown() -> None:
    noted = job()
    noted.notes.append("A worker was lost; its part was restored again.")
    noted.plan.warnings.append("Subtitles are not kept.")
    card = progress_card(noted)
    assert "A worker was lost" in card
    assert "Subtitles are not kept." in card


@pytest.mark.parametrize(("segments_done", "frame"), [(1, 47), (2, 95), (10, 479)])
def test_the_newest_frame_is_the_last_of_what_is_stored(segments_done: int, frame: int) -> None:
    assert newest_frame(job(segments_done=segments_done)) == frame


def test_pictures_are_shown_and_saved_but_not_played() -> None:
    restoring, done = job(segments_done=2), job(pb.JOB_STATE_SUCCEEDED)
    for one in (restoring, done):
        one.plan.container = "zip"
    assert live_player(restoring, LINKS) == players(done, LINKS) == ""
    assert "frames/result/95.png" in live_picture(restoring, LINKS)
    done.result.frames = 480
    assert "480 pictures" in download_card(done, LINKS)
    assert "480 pictures, nano" in headline(done, LINKS)


def test_live_pictures_appear_with_the_first_stored_segment() -> None:
    assert live_picture(job(), LINKS) == live_player(job(), LINKS) == ""
    assert "/files/jobs/one/frames/result/95.png?max_side=1280" in live_picture(job(segments_done=2), LINKS)
    assert "/files/jobs/one/hls/index.m3u8" in live_player(job(segments_done=2), LINKS)
    done = job(pb.JOB_STATE_SUCCEEDED, segments_done=10)
    assert live_picture(done, LINKS) == live_player(done, LINKS) == ""


def test_the_live_player_stays_the_same_while_segments_come() -> None:
    assert live_player(job(segments_done=2), LINKS) == live_player(job(segments_done=9), LINKS)


def test_the_result_plays_beside_the_source_from_the_same_moment() -> None:
    done = job(pb.JOB_STATE_SUCCEEDED)
    done.request.range.time.start.FromMilliseconds(1500)
    pair = players(done, LINKS)
    assert 'src="/files/jobs/one/source#t=1.500" data-start="1.5"' in pair
    assert 'src="/files/jobs/one/result" data-start="0.0"' in pair
    assert players(job(), LINKS) == ""


def test_a_result_can_be_downloaded_under_its_name() -> None:
    done = job(pb.JOB_STATE_SUCCEEDED)
    done.result.CopyFrom(pb.Result(filename="a-restored.mp4", width=128, height=96, size_bytes=2_500_000))
    card = download_card(done, LINKS)
    assert 'href="/files/jobs/one/result?download=1" download="a-restored.mp4"' in card
    assert "2.5 MB" in card
    assert download_card(job(), LINKS) == ""


def test_the_headline_leads_back_and_marks_a_preview() -> None:
    preview = job()
    preview.request.range.time.start.FromMilliseconds(0)
    assert 'href="/"' in headline(preview, LINKS)
    assert "preview of 2 s" in headline(preview, LINKS)
    assert "64 × 48 → 128 × 96, 480 frames" in headline(preview, LINKS)


def test_details_list_stages_in_the_order_in_which_frames_pass_them() -> None:
    timed = job()
    timed.progress.stage_seconds.update({"encode": 1.0, "decode": 2.0, "dit": 3.0})
    text = details(timed, None)
    assert text.index("Reading frames") < text.index(">Restoring<") < text.index("Writing video")


def test_details_tell_which_check_failed() -> None:
    checks = [
        pb.QualityCheck(name="frame_count", passed=True, detail="49"),
        pb.QualityCheck(name="audio_packets", passed=False, detail="3 of 4"),
    ]
    text = details(job(), pb.GetQualityReportResponse(checks=checks))
    assert "Frame count: 49" in text
    assert text.count("(failed)") == 1
