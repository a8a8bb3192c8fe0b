from services.gateway.progress import ProgressMeter


def meter() -> ProgressMeter:
    return ProgressMeter(frames_total=100, segments_total=10, predicted_s=50.0)


def test_before_anything_is_restored_the_prediction_stands():
    progress = meter().progress(1.0)
    assert (progress.stage, progress.frames_done, progress.time_left_s) == ("waiting", 0, 50.0)


def test_speed_counts_from_the_first_span_of_this_run():
    m = meter()
    m.span_found(0, 40, 4)
    m.span_started(10.0)
    m.stage_done(0, "encode", 60, 1.5)
    progress = m.progress(20.0)
    assert (progress.stage, progress.frames_done, progress.frames_per_second, progress.time_left_s) == ("encode", 60, 2.0, 20.0)


def test_stored_segments_and_encoded_frames_are_not_counted_twice():
    m = meter()
    m.span_found(0, 0, 0)
    m.stage_done(0, "encode", 10, 0.1)
    m.segment_stored(0, 10)
    m.segment_stored(0, 10)
    progress = m.progress(1.0)
    assert (progress.frames_done, progress.segments_done) == (20, 2)


def test_a_span_that_is_sent_again_is_counted_by_what_the_store_has():
    m = meter()
    m.span_found(0, 0, 0)
    m.stage_done(0, "encode", 30, 0.1)
    m.span_found(0, 10, 1)
    assert m.progress(1.0).frames_done == 10


def test_work_is_added_up_by_stage():
    m = meter()
    m.span_started(0.0)
    m.stage_done(0, "dit", 5, 1.0)
    m.stage_done(1, "dit", 5, 2.0)
    assert m.progress(1.0).stage_seconds == {"dit": 3.0}
    assert m.progress(1.0).stage == "dit"
    m.span_stopped()
    assert m.progress(1.0).stage == "waiting"
