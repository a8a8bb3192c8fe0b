"""What the page of one job shows: progress, live picture, players, details. Pure."""

from services.common.client import ENDED_STATES
from services.common.formats import STILL
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.words import STAGES, STATES
from services.ui.form import COLOURS, PREVIEW_S, is_preview
from services.ui.home_cards import badge, facts_list, notice, warning_list
from services.ui.links import Links
from services.ui.markup import EMPTY, Html, join, tag
from services.ui.words import count, percent, progress_words, seconds_of, size_words, time_words

_LIVE_SIDE = 1280
_RUNNING_STAGES = ("decode", "prepare", "vae_encode", "dit", "vae_decode", "colour", "encode", "join")


def headline(job: pb.Job, links: Links) -> Html:
    """Way back, the file's name, the state."""
    title = tag("h1", job.filename or job.job_id)
    marks = [badge(job.state)]
    if is_preview(job.request):
        marks.insert(0, tag("small", f"preview of {PREVIEW_S:g} s", class_="sv-tag"))
    back = tag("a", "← New video", href=links.home(), class_="sv-back")
    return tag("div", back, tag("div", title, *marks, class_="sv-title"), tag("p", _summary(job), class_="sv-muted"))


def progress_card(job: pb.Job) -> Html:
    """How far the job is, by stage."""
    done = percent(job)
    bar = tag(
        "div",
        tag("span", style=f"width:{done}%"),
        class_="sv-bar" + ("" if job.state in ENDED_STATES or done else " sv-bar-busy"),
        role="progressbar",
        aria_label="Restored frames",
        aria_valuemin=0,
        aria_valuemax=100,
        aria_valuenow=done,
    )
    words = tag("p", tag("b", _headword(job)), tag("span", progress_words(job)), class_="sv-progress-words", aria_live="polite")
    parts = [_failure(job), words]
    if job.state not in ENDED_STATES:
        parts += [bar, _stages(job)]
    parts += [warning_list(tuple(job.plan.warnings)), _notes(job)]
    return tag("div", *parts, class_="sv-progress", data_state=STATES.get(job.state, "").lower(), data_job=job.job_id)


def live_picture(job: pb.Job, links: Links) -> Html:
    """The newest restored frame; nothing before there is one."""
    if not _is_growing(job):
        return EMPTY
    newest = newest_frame(job)
    picture = tag(
        "live-picture",
        src=links.frame(job.job_id, "result", newest, _LIVE_SIDE),
        alt=f"Restored frame {newest + 1}",
    )
    return tag("figure", picture, tag("figcaption", f"Newest restored part, frame {newest + 1:,}"))


def live_player(job: pb.Job, links: Links) -> Html:
    """A player of what is stored so far; the same for the whole job, so that the page leaves it alone."""
    if not _is_growing(job) or job.plan.container in STILL:
        return EMPTY
    player = tag("growing-video", src=links.playlist(job.job_id), label="What is restored so far")
    return tag("figure", player, tag("figcaption", "What is restored so far"))


def newest_frame(job: pb.Job) -> int:
    """A frame of the newest stored segment, counted from the job's first one.

    Segments are stored in order where one worker restores; their length is the same but for the last of each span, so the
    mean length never points behind what is stored.
    """
    progress = job.progress
    mean = progress.frames_total // max(1, progress.segments_total)
    return int(max(0, min(progress.frames_total - 1, progress.segments_done * mean - 1)))


def players(job: pb.Job, links: Links) -> Html:
    """Source and result side by side, played together; nothing where the result is no video."""
    if not can_be_played(job):
        return EMPTY
    return tag(
        "video-pair",
        _player("Before", links.source(job.job_id), "source-video", start_s=_range_start_s(job.request), muted=True),
        _player("After", links.result(job.job_id), "result-video"),
        class_="sv-pair",
    )


def can_be_played(job: pb.Job) -> bool:
    """Whether there is a result that is a video."""
    return job.state == pb.JOB_STATE_SUCCEEDED and job.plan.container not in STILL


def download_card(job: pb.Job, links: Links) -> Html:
    """The link that saves the result."""
    if job.state != pb.JOB_STATE_SUCCEEDED:
        return EMPTY
    result = job.result
    length = time_words(seconds_of(result.duration)) if can_be_played(job) else count(result.frames, "picture")
    words = f"{result.width} × {result.height}, {length}, {size_words(result.size_bytes)}"
    link = tag("a", "Download", href=links.download(job.job_id), download=result.filename, class_="sv-download", id="download")
    return tag("div", link, tag("span", words, class_="sv-muted"), class_="sv-download-row")


def details(job: pb.Job, report: pb.GetQualityReportResponse | None) -> Html:
    """Settings, times by stage and checks."""
    parts = [facts_list(_settings(job))]
    spent = [(STAGES.get(name, name), time_words(s)) for name, s in sorted(job.progress.stage_seconds.items(), key=_by_stage)]
    if spent:
        parts += [tag("h3", "Time by stage"), facts_list(spent)]
    if report and report.checks:
        parts += [tag("h3", "Checks of the result"), tag("ul", *(_check(c) for c in report.checks), class_="sv-checks")]
    return tag("div", *parts, class_="sv-details")


def _player(title: str, address: str, name: str, *, start_s: float = 0.0, muted: bool = False) -> Html:
    """A video that counts from ``start_s``; the silent one of a pair doesn't double the sound."""
    video = tag(
        "video",
        src=f"{address}#t={start_s:.3f}" if start_s else address,
        data_start=start_s,
        muted=muted,
        controls=True,
        playsinline=True,
        preload="auto",
        id=name,
        aria_label=title,
    )
    return tag("figure", video, tag("figcaption", title))


def _range_start_s(request: pb.JobRequest) -> float:
    return seconds_of(request.range.time.start) if request.range.HasField("time") else 0.0


def _is_growing(job: pb.Job) -> bool:
    return job.state not in ENDED_STATES and job.progress.segments_done > 0


def _headword(job: pb.Job) -> str:
    if job.state == pb.JOB_STATE_RESTORING and job.progress.stage in ("waiting", "store"):
        return STAGES[job.progress.stage]
    return STATES.get(job.state, "Unknown")


def _summary(job: pb.Job) -> str:
    plan = job.plan
    if not plan.frames:
        return "The file is being looked at."
    length = f"{count(plan.frames, 'frame')}, {time_words(seconds_of(plan.duration))}"
    if plan.container in STILL:
        length = count(plan.frames, "picture")
    return f"{plan.source_width} × {plan.source_height} → {plan.width} × {plan.height}, {length}, {plan.model}"


def _stages(job: pb.Job) -> Html:
    current = job.progress.stage
    return tag(
        "ol",
        *(
            tag(
                "li", STAGES[name], class_="sv-now" if name == current else None, aria_current="step" if name == current else None
            )
            for name in _RUNNING_STAGES
        ),
        class_="sv-stages",
        aria_label="Stages",
    )


def _failure(job: pb.Job) -> Html:
    return notice(job.failure.message) if job.state == pb.JOB_STATE_FAILED else EMPTY


def _notes(job: pb.Job) -> Html:
    return tag("ul", *(tag("li", note) for note in job.notes), class_="sv-notes") if job.notes else EMPTY


def _settings(job: pb.Job) -> "list[tuple[str, str]]":
    request, facts = job.request, [("Job", job.job_id)]
    if job.plan.model:
        facts.append(("Model", job.plan.model))
    facts.append(("Seed", str(request.seed) if request.HasField("seed") else "666"))
    facts.append(("Colours", COLOURS.get(request.colour, "The model's default").split(":")[0]))
    for value, name in ((request.input_noise, "Noise on the frames"), (request.latent_noise, "Freedom")):
        if value:
            facts.append((name, f"{value:g}"))
    if job.result.sha256:
        facts.append(("SHA-256", tag("code", job.result.sha256)))
    return facts


def _check(check: pb.QualityCheck) -> Html:
    mark = tag("span", "✓" if check.passed else "✗", class_="sv-good" if check.passed else "sv-bad", aria_hidden="true")
    words = join([check.name.replace("_", " ").capitalize(), ": " if check.detail else "", check.detail])
    return tag("li", mark, tag("span", words, tag("span", "" if check.passed else " (failed)")))


def _by_stage(item: "tuple[str, float]") -> int:
    order = list(STAGES)
    return order.index(item[0]) if item[0] in order else len(order)
