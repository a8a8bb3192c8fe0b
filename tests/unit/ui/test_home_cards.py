from google.protobuf import duration_pb2

from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.ui.home_cards import job_list, model_label, notice, other_models, plan_card, top_bar
from services.ui.links import Links

LINKS = Links(root_path="/seedvr2")


def status(*states: str, running: int = 0, waiting: int = 0) -> pb.GetClusterStatusResponse:
    workers = [pb.WorkerSummary(state=state) for state in states]
    return pb.GetClusterStatusResponse(workers=workers, jobs_running=running, jobs_waiting=waiting)


def test_the_top_bar_says_how_the_service_is() -> None:
    assert "Service not reachable" in top_bar(LINKS, None)
    assert "No worker is running" in top_bar(LINKS, status("lost"))
    assert "Worker is starting" in top_bar(LINKS, status("starting"))
    assert "2 workers ready, 1 running, 3 waiting" in top_bar(LINKS, status("ready", "busy", "lost", running=1, waiting=3))


def test_a_plan_names_sizes_length_time_and_what_to_be_aware_of() -> None:
    plan = pb.PlanSummary(model="nano", source_width=640, source_height=360, width=1280, height=720, frames=49, container="mp4")
    plan.duration.CopyFrom(duration_pb2.Duration(seconds=2))
    plan.warnings.append("Attachments are not kept.")
    card = plan_card(plan)
    for words in ("640 × 360 → <b>1280 × 720</b>", "2.0 s, 49 frames", "MP4", "Attachments are not kept.", "known once"):
        assert words in card
    plan.predicted_time.CopyFrom(duration_pb2.Duration(seconds=28))
    assert "about 28 s" in plan_card(plan)
    assert "Memory" not in card
    plan.predicted_memory_bytes = 25_000_000_000
    assert "about 25 GB of the worker" in plan_card(plan)


def test_a_picture_has_no_length_in_time() -> None:
    card = plan_card(pb.PlanSummary(width=1280, height=720, frames=1, container="png"))
    assert "1 picture" in card
    assert "0.0 s" not in card


def test_recent_jobs_link_to_their_pages() -> None:
    jobs = [
        pb.Job(job_id="one", filename="<a>.mp4", state=pb.JOB_STATE_SUCCEEDED),
        pb.Job(job_id="two", filename="b.mp4", state=pb.JOB_STATE_FAILED, failure=pb.Failure(message="It broke.")),
        pb.Job(job_id="three", state=pb.JOB_STATE_RESTORING, progress=pb.Progress(frames_done=1, frames_total=4)),
    ]
    listed = job_list(jobs, LINKS)
    assert 'href="/seedvr2/?job=one"' in listed
    assert "&lt;a&gt;.mp4" in listed
    assert "It broke." in listed
    assert "width:25%" in listed


def test_a_preview_is_marked_in_the_list() -> None:
    preview = pb.Job(job_id="one", request=pb.JobRequest(range=pb.Range(time=pb.TimeRange())))
    assert "preview" in job_list([preview], LINKS)


def test_without_jobs_the_list_says_what_will_be_there() -> None:
    assert "appear here" in job_list([], LINKS)


def test_models_that_nobody_runs_are_told_with_how_they_are() -> None:
    delivered = pb.Model(name="seedvr2-3b", title="SeedVR2 3B", installed="ready")
    fetching = pb.Model(name="seedvr2-7b", title="SeedVR2 7B", installed="fetching")
    assert other_models([delivered, fetching]) == "Not running here: SeedVR2 3B (downloaded), SeedVR2 7B (being downloaded)."
    assert other_models([]) is None


def test_a_model_says_whether_it_is_running() -> None:
    assert model_label(pb.Model(name="nano", title="Nano", ready=True)) == "Nano · ready"
    assert model_label(pb.Model(name="nano")) == "nano · not running now"


def test_a_notice_is_announced_and_nothing_is_not() -> None:
    assert 'role="alert"' in notice("Choose a video first.")
    assert notice("") == ""
