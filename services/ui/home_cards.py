"""What the page for a new job shows besides its form: service state, plan, jobs, notices. Pure."""

from services.common.client import ENDED_STATES
from services.common.formats import STILL
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.words import STATES
from services.ui.form import is_preview
from services.ui.links import Links
from services.ui.markup import EMPTY, Html, tag
from services.ui.visitor import NOBODY, Visitor
from services.ui.words import about, count, percent, progress_words, seconds_of, size_words, time_words

_READY_STATES = frozenset({"ready", "busy"})


def top_bar(
    links: Links, status: pb.GetClusterStatusResponse | None, visitor: Visitor = NOBODY, *, signed_out: bool = False
) -> Html:
    """Name, how the service is (None: it doesn't answer), who is signed in, and the switch between light and dark."""
    brand = tag(
        "a",
        tag("img", src=f"{links.root_path}/ui/logo.svg", alt="", width=34, height=34),
        tag("span", tag("strong", "SeedVR2"), tag("span", "Video restoration", class_="sv-muted"), class_="sv-brand-words"),
        href=links.home(),
        class_="sv-brand",
    )
    switch = tag("button", type="button", class_="sv-theme", data_theme_switch=True, aria_label="Switch between light and dark")
    pill = _pill("sv-bad", "Signed out: load the page again") if signed_out else _service_pill(status)
    return tag("div", brand, tag("div", pill, _who(links, visitor), switch, class_="sv-top-end"), class_="sv-top")


def _who(links: Links, visitor: Visitor) -> Html:
    if not visitor.name:
        return EMPTY
    leave = tag("form", tag("button", "Sign out", type="submit"), method="post", action=links.logout())
    name = tag("span", visitor.name, title=visitor.name, class_="sv-who-name")
    return tag("span", name, leave if visitor.can_leave else EMPTY, class_="sv-who")


def notice(text: str) -> Html:
    """An error or a hint that stands out; nothing for an empty text."""
    return tag("div", text, class_="sv-notice", role="alert") if text else EMPTY


def plan_card(plan: pb.PlanSummary) -> Html:
    """What the job would do."""
    facts = [
        ("Size", tag("span", f"{_size(plan.source_width, plan.source_height)} → ", tag("b", _size(plan.width, plan.height)))),
        ("Length", _length(plan)),
        ("Expected time", _expected(plan)),
        ("Model", plan.model),
    ]
    if plan.predicted_memory_bytes:
        facts.append(("Memory", f"about {size_words(plan.predicted_memory_bytes)} of the worker's device"))
    if plan.container:
        facts.append(("File", plan.container.upper()))
    return tag("div", facts_list(facts), warning_list(tuple(plan.warnings)), class_="sv-plan")


def _length(plan: pb.PlanSummary) -> str:
    if plan.container in STILL:
        return count(plan.frames, "picture")
    return f"{time_words(seconds_of(plan.duration))}, {count(plan.frames, 'frame')}"


def plan_hint(text: str) -> Html:
    """What stands in the plan's place while there is none."""
    return tag("p", text, class_="sv-muted sv-hint")


def facts_list(facts: "list[tuple[str, str]]") -> Html:
    """Names with values."""
    return tag("dl", *(tag("div", tag("dt", name), tag("dd", value)) for name, value in facts), class_="sv-facts")


def warning_list(warnings: tuple[str, ...]) -> Html:
    """Sentences to be aware of; nothing if there are none."""
    return tag("ul", *(tag("li", text) for text in warnings), class_="sv-warnings") if warnings else EMPTY


def job_list(jobs: "list[pb.Job]", links: Links) -> Html:
    """Recent jobs, newest first, each a link to its page."""
    if not jobs:
        return tag("p", "Videos that you restore appear here.", class_="sv-muted sv-hint")
    return tag("ul", *(_job_row(job, links) for job in jobs), class_="sv-jobs")


def badge(state: pb.JobState) -> Html:
    """A job's state as a coloured word."""
    word = STATES.get(state, "Unknown")
    return tag("span", word, class_=f"sv-badge sv-{word.lower()}")


def model_label(model: pb.Model) -> str:
    """A model's name with what can be done with it now."""
    return f"{model.title or model.name} · {'ready' if model.ready else 'not running now'}"


_INSTALLED = {
    "ready": "downloaded",
    "foreign": "downloaded",
    "fetching": "being downloaded",
    "incomplete": "downloaded in part",
    "broken": "damaged",
    "absent": "not downloaded",
}


def other_models(models: list[pb.Model]) -> str | None:
    """What there is besides the models that can be chosen, and why they can't; None where there is nothing."""
    words = [f"{model.title or model.name} ({_INSTALLED.get(model.installed, 'unknown')})" for model in models]
    return f"Not running here: {', '.join(words)}." if words else None


def _job_row(job: pb.Job, links: Links) -> Html:
    name = job.filename or job.job_id
    bar = EMPTY
    if job.state not in ENDED_STATES:
        bar = tag("span", tag("span", style=f"width:{percent(job)}%"), class_="sv-mini-bar")
    text = progress_words(job) if job.state != pb.JOB_STATE_FAILED else job.failure.message
    words = tag(
        "span",
        tag("span", name, tag("small", "preview", class_="sv-tag") if is_preview(job.request) else EMPTY, class_="sv-job-name"),
        tag("span", text, class_="sv-muted sv-job-words"),
        bar,
        class_="sv-job-text",
    )
    return tag("li", tag("a", words, badge(job.state), href=links.job(job.job_id), class_="sv-job"))


def _service_pill(status: pb.GetClusterStatusResponse | None) -> Html:
    if status is None:
        return _pill("sv-bad", "Service not reachable")
    ready = sum(worker.state in _READY_STATES for worker in status.workers)
    if not ready:
        starting = any(worker.state == "starting" for worker in status.workers)
        return _pill("sv-wait", "Worker is starting" if starting else "No worker is running")
    words = [f"{count(ready, 'worker')} ready"]
    if status.jobs_running:
        words.append(f"{status.jobs_running} running")
    if status.jobs_waiting:
        words.append(f"{status.jobs_waiting} waiting")
    return _pill("sv-good", ", ".join(words))


def _pill(kind: str, text: str) -> Html:
    return tag("span", tag("i", class_="sv-dot", aria_hidden="true"), text, class_=f"sv-pill {kind}", role="status")


def _size(width: int, height: int) -> str:
    return f"{width} × {height}"


def _expected(plan: pb.PlanSummary) -> str:
    if plan.HasField("predicted_time"):
        return about(seconds_of(plan.predicted_time))
    return "known once the first frames are restored"
