"""Jobs, uploads and models as JSON objects. Shapes are OpenAI's as far as they fit."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from services.common.fleet import ModelState
from services.gateway.catalogue import KnownModel
from services.gateway.identity.quotas import Account
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Job, State
from services.gateway.progress import CUTS, JOIN, Progress, shown_progress
from services.gateway.uploads import Upload

STATUSES = {
    State.PENDING: "queued",
    State.PLANNING: "in_progress",
    State.RESTORING: "in_progress",
    State.JOINING: "in_progress",
    State.SUCCEEDED: "completed",
    State.FAILED: "failed",
    State.CANCELLED: "cancelled",
}
"""A job's state in OpenAI's words; ``cancelled`` is ours."""

# Of 100: what comes before the first restored frame, and what comes after the last one.
_BEFORE, _AFTER = 5, 5


def encode_video(job: Job, progress: Progress) -> dict[str, Any]:
    """A job as the object ``video``."""
    shown = shown_progress(job, progress)
    plan, result = job.plan, job.result
    return {
        "id": job.job_id,
        "object": "video",
        "status": STATUSES[job.state],
        "progress": percent(job, shown),
        "created_at": int(job.created_at),
        "started_at": _whole(job.started_at),
        "completed_at": _whole(job.ended_at),
        "model": job.model,
        "size": f"{plan.width}x{plan.height}" if plan else None,
        "seconds": f"{plan.duration_s:g}" if plan else None,
        "error": {"code": job.failure.reason, "message": job.failure.message} if job.failure else None,
        "filename": job.filename,
        "state": job.state.lower(),
        "work": _work(shown),
        "request": encode_request(job.request),
        "plan": asdict(plan) if plan else None,
        "result": asdict(result) if result else None,
        "notes": list(job.notes),
    }


def percent(job: Job, shown: Progress) -> int:
    """How much of a job is done, 0 to 100; 100 only once it has succeeded."""
    if job.state is State.SUCCEEDED:
        return 100
    done = shown.frames_done / shown.frames_total if shown.frames_total else 0.0
    if job.state is State.JOINING or shown.stage == JOIN:
        return 100 - _AFTER
    if job.plan is None:
        return int(_BEFORE * shown.stage_fraction) if shown.stage == CUTS else 0
    return min(100 - _AFTER, int(_BEFORE + (100 - _BEFORE - _AFTER) * done))


def encode_request(request: JobRequest) -> dict[str, Any]:
    """What was asked for, by the names that it is asked for with; what was left open is absent."""
    first, end = request.frames or (None, None)
    start_ns, end_ns = request.time_ns or (None, None)
    values = {
        "upload_id": request.upload_id, "object_uri": request.object_uri, "https_url": request.https_url,
        "model": request.model, "pool": request.pool, "scale": request.scale, "short_side": request.short_side,
        "size": f"{request.box[0]}x{request.box[1]}" if request.box else None, "first_frame": first, "end_frame": end or None,
        "start": None if start_ns is None else start_ns / 1e9, "end": None if end_ns is None else end_ns / 1e9,
        "seed": request.seed, "colour": request.colour, "preview": request.preview or None, "format": request.container,
        "crf": request.crf, "encoder": request.encoder, "input_noise": request.input_noise or None,
        "latent_noise": request.latent_noise or None,
        "steps": None if request.steps == 1 else request.steps,
        "cfg_scale": None if request.cfg_scale == 1 else request.cfg_scale,
        "result_uri": request.result_uri, "webhook_url": request.webhook_url, "labels": dict(request.labels) or None,
    }  # fmt: skip
    return {name: value for name, value in values.items() if value is not None and value != ""}


def encode_upload(upload: Upload) -> dict[str, Any]:
    """An upload as the object ``upload``."""
    return {
        "id": upload.ref.id,
        "object": "upload",
        "status": "completed" if upload.complete else "pending",
        "filename": upload.filename,
        "bytes": upload.size_bytes,
        "received_bytes": upload.received_bytes,
        "sha256": upload.sha256 or None,
        "created_at": int(upload.created_at),
    }


def encode_models(served: list[KnownModel], installed: Mapping[str, ModelState], default_model: str) -> list[dict[str, Any]]:
    """The models that jobs can name, as objects ``model``."""
    return [
        {
            "id": known.model.name,
            "object": "model",
            "created": 0,
            "owned_by": "seedvr2",
            "title": known.model.title,
            "default": known.model.name == default_model,
            "ready": known.ready,
            "parameters": known.model.parameters,
            "colours": list(known.model.colours),
            "max_steps": known.model.max_steps,
            "pools": list(known.pools),
            "installed": installed[known.model.name].state if known.model.name in installed else None,
        }
        for known in served
    ]


def encode_account(account: Account) -> dict[str, Any]:
    """What was used, as the object ``usage``."""
    return {
        "object": "usage",
        "month": account.month,
        "data": [{**asdict(usage), "owner": usage.owner or None} for usage in account.usages],
        "quota": asdict(account.quota),
        "active_jobs": account.active_jobs,
    }


def _work(shown: Progress) -> dict[str, Any]:
    return {
        "stage": shown.stage,
        "stage_fraction": shown.stage_fraction,
        "frames_done": shown.frames_done,
        "frames_total": shown.frames_total,
        "frames_per_second": shown.frames_per_second,
        "seconds_left": shown.time_left_s,
        "segments_done": shown.segments_done,
        "segments_total": shown.segments_total,
        "stage_seconds": dict(shown.stage_seconds),
    }


def _whole(seconds: float | None) -> int | None:
    return None if seconds is None else int(seconds)
