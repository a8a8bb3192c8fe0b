"""Protobuf messages of gateway.proto to our types and back."""

from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from google.protobuf import duration_pb2, timestamp_pb2

from services.common.colours import COLOURS
from services.common.errors import InvalidOption, all_errors
from services.common.fleet import ModelState
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.rpc.status import canonical_code
from services.gateway.catalogue import KnownModel
from services.gateway.identity.quotas import Quota
from services.gateway.identity.usage import Usage
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Failure, Job, PlanSummary, Result, State
from services.gateway.ports import QualityCheck, WorkerView
from services.gateway.progress import Progress, shown_progress
from services.gateway.results import Download
from services.gateway.uploads import Upload

_COLOUR_NUMBERS: dict[str, Any] = {name: pb.ColourMode.Value(f"COLOUR_MODE_{name.upper()}") for name in COLOURS}
_COLOURS: dict[int, str] = {pb.COLOUR_MODE_UNSPECIFIED: ""} | {number: name for name, number in _COLOUR_NUMBERS.items()}
_PRIORITIES: dict[int, bool] = {pb.PRIORITY_UNSPECIFIED: False, pb.PRIORITY_BATCH: False, pb.PRIORITY_PREVIEW: True}
_NANO = 10**9

T = TypeVar("T")


def decode_request(message: pb.JobRequest) -> JobRequest:
    """A job request. Raises InvalidOption for a number that no enumeration has."""
    source, target, span = message.source, message.target, message.range
    rule, kind = target.WhichOneof("rule"), span.WhichOneof("kind")
    return JobRequest(
        upload_id=source.upload_id,
        object_uri=source.object_uri,
        https_url=source.https_url,
        model=message.model,
        pool=message.pool,
        scale=target.scale if rule == "scale" else None,
        short_side=target.short_side if rule == "short_side" else None,
        box=(target.box.width, target.box.height) if rule == "box" else None,
        frames=(span.frames.first, span.frames.end) if kind == "frames" else None,
        time_ns=(_ns(span.time.start), _ns(span.time.end) if span.time.HasField("end") else None) if kind == "time" else None,
        seed=message.seed if message.HasField("seed") else None,
        colour=_known(_COLOURS, message.colour, "request.colour"),
        preview=_known(_PRIORITIES, message.priority, "request.priority"),
        container=message.container,
        crf=message.crf if message.HasField("crf") else None,
        encoder=message.encoder,
        input_noise=message.input_noise,
        latent_noise=message.latent_noise,
        steps=message.steps if message.HasField("steps") else 1,
        cfg_scale=message.cfg_scale if message.HasField("cfg_scale") else 1.0,
        result_uri=message.result_uri,
        webhook_url=message.webhook_url,
        labels=tuple(sorted(message.labels.items())),
    )


def encode_request(request: JobRequest) -> pb.JobRequest:
    """Read :func:`decode_request` back."""
    message = pb.JobRequest(
        model=request.model, pool=request.pool, seed=request.seed, colour=_COLOUR_NUMBERS.get(request.colour, 0),
        priority=pb.PRIORITY_PREVIEW if request.preview else pb.PRIORITY_BATCH, container=request.container, crf=request.crf,
        labels=dict(request.labels), input_noise=request.input_noise, latent_noise=request.latent_noise, steps=request.steps,
        cfg_scale=request.cfg_scale, result_uri=request.result_uri, webhook_url=request.webhook_url,
        encoder=request.encoder,
    )  # fmt: skip
    for name in ("upload_id", "object_uri", "https_url"):
        if value := getattr(request, name):
            setattr(message.source, name, value)
    if request.scale is not None:
        message.target.scale = request.scale
    if request.short_side is not None:
        message.target.short_side = request.short_side
    if request.box is not None:
        message.target.box.width, message.target.box.height = request.box
    if request.frames is not None:
        message.range.frames.first, message.range.frames.end = request.frames
    if request.time_ns is not None:
        start, end = request.time_ns
        message.range.time.start.FromNanoseconds(start)
        if end is not None:
            message.range.time.end.FromNanoseconds(end)
    return message


def decode_states(states: list[int]) -> list[State]:
    """States to list. Raises InvalidOption."""
    names = {number: name.removeprefix("JOB_STATE_") for name, number in pb.JobState.items()}
    if unknown := [s for s in states if names.get(s) not in State.__members__]:
        raise InvalidOption(f"There is no job state {unknown[0]}; leave the states out for all.", field="states")
    return [State[names[s]] for s in states]


def encode_upload(upload: Upload) -> pb.Upload:
    """An upload."""
    return pb.Upload(
        upload_id=upload.ref.id, filename=upload.filename, received_bytes=upload.received_bytes,
        size_bytes=upload.size_bytes, complete=upload.complete, sha256=upload.sha256, created_at=_timestamp(upload.created_at),
    )  # fmt: skip


def encode_job(job: Job, progress: Progress) -> pb.Job:
    """A job and what is being done for it."""
    return pb.Job(
        job_id=job.job_id,
        state=f"JOB_STATE_{job.state.value}",
        request=encode_request(job.request),
        plan=encode_plan(job.plan) if job.plan else None,
        progress=_encode_progress(shown_progress(job, progress)),
        failure=_encode_failure(job.failure) if job.failure else None,
        result=_encode_result(job.result) if job.result else None,
        created_at=_timestamp(job.created_at),
        started_at=_timestamp(job.started_at),
        ended_at=_timestamp(job.ended_at),
        revision=job.revision,
        filename=job.filename,
        notes=job.notes,
    )


def encode_plan(plan: PlanSummary) -> pb.PlanSummary:
    """A plan's summary."""
    return pb.PlanSummary(
        model=plan.model, pool=plan.pool, fingerprint=plan.fingerprint, source_width=plan.source_width,
        source_height=plan.source_height, width=plan.width, height=plan.height, frames=plan.frames,
        first_frame=plan.first_frame, spans=plan.spans, segments=plan.segments, duration=_duration(plan.duration_s),
        predicted_time=_duration(plan.until_done_s), container=plan.container, warnings=plan.warnings,
        predicted_memory_bytes=plan.predicted_memory_bytes, predicted_wait=_duration(plan.predicted_wait_s),
    )  # fmt: skip


def encode_usage(usage: Usage) -> pb.Usage:
    """What somebody used."""
    return pb.Usage(
        subject=usage.subject, owner=usage.owner, jobs=usage.jobs, gpu_seconds=usage.gpu_seconds, megapixels=usage.megapixels
    )


def encode_quota(quota: Quota) -> pb.Quota:
    """What somebody may use."""
    return pb.Quota(
        active_jobs=quota.active_jobs, gpu_seconds_month=quota.gpu_seconds_month, megapixels_month=quota.megapixels_month
    )


def encode_object(download: Download) -> pb.ObjectInfo:
    """What an object is as a whole."""
    return pb.ObjectInfo(
        filename=download.filename, media_type=download.media_type, size_bytes=download.size_bytes, sha256=download.sha256
    )


def encode_check(check: QualityCheck) -> pb.QualityCheck:
    """A line of the quality report."""
    return pb.QualityCheck(name=check.name, passed=check.passed, detail=check.detail, value=check.value)


def encode_models(served: Iterable[KnownModel], installed: Mapping[str, ModelState]) -> list[pb.Model]:
    """The models that workers serve, then those that only lie in their model directories, or could."""
    models = [_encode_model(known) for known in served]
    names = {model.name for model in models}
    models += [pb.Model(name=state.name, title=state.title) for state in installed.values() if state.name not in names]
    for model in models:
        if state := installed.get(model.name):
            model.installed, model.size_bytes = state.state, state.size_bytes
    return models


def _encode_model(known: KnownModel) -> pb.Model:
    model = known.model
    return pb.Model(
        name=model.name, title=model.title, ready=known.ready, parameters=model.parameters,
        size_multiple=model.size_multiple, temporal_factor=model.temporal_factor,
        colours=[_COLOUR_NUMBERS[c] for c in model.colours if c in _COLOUR_NUMBERS], pools=known.pools, detail=model.detail,
        max_steps=model.max_steps,
    )  # fmt: skip


def encode_worker(view: WorkerView) -> pb.WorkerSummary:
    """A worker as people see it."""
    summary = pb.WorkerSummary(address=view.address, pool=view.pool, state=view.state, detail=view.detail)
    status = view.status
    if status is not None:
        summary.models.extend(model.name for model in status.models)
        summary.fingerprint = status.fingerprint
        summary.device = status.facts.get("device", "")
        summary.ranks = status.ranks
        summary.free_slots = 0 if view.lost else status.free_slots
        summary.megapixels_per_second = status.megapixels_per_second
        summary.memory_bytes = status.memory_bytes
    return summary


def _encode_progress(shown: Progress) -> pb.Progress:
    return pb.Progress(
        stage=shown.stage,
        frames_done=shown.frames_done,
        frames_total=shown.frames_total,
        frames_per_second=shown.frames_per_second,
        time_left=_duration(shown.time_left_s),
        segments_done=shown.segments_done,
        segments_total=shown.segments_total,
        stage_seconds=shown.stage_seconds,
        stage_fraction=shown.stage_fraction,
    )


def _encode_failure(failure: Failure) -> pb.Failure:
    return pb.Failure(reason=failure.reason, code=canonical_code(all_errors()[failure.reason]), message=failure.message)


def _encode_result(result: Result) -> pb.Result:
    return pb.Result(
        filename=result.filename, media_type=result.media_type, size_bytes=result.size_bytes, sha256=result.sha256,
        width=result.width, height=result.height, frames=result.frames, duration=_duration(result.duration_s),
        elapsed=_duration(result.elapsed_s),
    )  # fmt: skip


def _known(values: Mapping[int, T], number: int, field: str) -> T:
    if number not in values:
        raise InvalidOption(f"{number} is not a value of {field}; see the API's definition.", field=field)
    return values[number]


def _ns(duration: duration_pb2.Duration) -> int:
    return int(duration.seconds) * _NANO + int(duration.nanos)


def _duration(seconds: float | None) -> duration_pb2.Duration | None:
    if seconds is None:
        return None
    message = duration_pb2.Duration()
    message.FromNanoseconds(round(seconds * _NANO))
    return message


def _timestamp(seconds: float | None) -> timestamp_pb2.Timestamp | None:
    if seconds is None:
        return None
    message = timestamp_pb2.Timestamp()
    message.FromNanoseconds(round(seconds * _NANO))
    return message
