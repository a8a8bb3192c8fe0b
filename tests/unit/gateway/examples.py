"""Plain values for tests of the gateway."""

from dataclasses import replace
from fractions import Fraction
from typing import Any

from services.common.fleet import WorkerModel, WorkerStatus
from services.common.media import CodecParameters
from services.gateway import jobs
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Job, PlanSummary, Result, State
from services.gateway.keys import LOCAL, Ref
from services.gateway.planning import Offer, PlanLimits
from services.gateway.ports import WorkerView
from services.gateway.source import Keyframe, PacketFacts, SourceIndex, SourceInfo

LIMITS = PlanLimits(
    max_source_pixels=4_000_000, max_output_pixels=4_000_000, max_duration_s=100.0, preview_max_s=2.0, span_s=4.0,
    span_work_s=60.0, segment_frames=8, encoder_preset="fast",
)  # fmt: skip

MODEL = WorkerModel(
    name="nano", title="Nano", hash="ab" * 32, dtype="float32", weight_format="float16", size_multiple=8, temporal_factor=4,
    window_latents=7, overlap_latents=2, parameters=10, colours=("wavelet", "none"),
)  # fmt: skip

OFFER = Offer(model=MODEL, pool="", fingerprint="f1", workers=2, megapixels_per_second=0.0)


def info(**changes: Any) -> SourceInfo:
    """A plain 640 by 360 MP4 at 25 frames a second; codec fields are changed by their names too."""
    codec = CodecParameters(codec="h264", extradata=b"\x01\x02", width=640, height=360, pixel_format="yuv420p")
    inner = {name: value for name, value in changes.items() if name in CodecParameters.__slots__ and name != "codec"}
    outer = {name: value for name, value in changes.items() if name not in inner}
    values: dict[str, Any] = {
        "container": "mov,mp4,m4a,3gp,3g2,mj2", "stream": 0, "codec": replace(codec, **inner), "time_base": Fraction(1, 25),
        "bits": 8, "frames_declared": 0, "duration_s": 0.0, "others": (), "stamped": True, "origin_free": False,
        "start_s": 0.0, "image": False, "interlaced": False,
    }  # fmt: skip
    return SourceInfo(**{**values, **outer})


def index(frames: int = 50, *, by_order: bool = False, gop: int = 10) -> SourceIndex:
    """One tick a frame."""
    keyframes = tuple(Keyframe(packet=i, frame=i, pts=i, dts=i) for i in range(0, frames, gop))
    return SourceIndex(pts=tuple(range(frames)), last_duration=1, by_order=by_order, keyframes=keyframes)


def packet(pts: int | None, dts: int | None = None, **changes: Any) -> PacketFacts:
    """A packet of one tick."""
    values = {"duration": 1, "keyframe": False, "shown": True, "corrupt": False, **changes}
    return PacketFacts(pts=pts, dts=pts if dts is None else dts, **values)


def ref(name: str, owner: str = LOCAL) -> Ref:
    """Names a job or an upload."""
    return Ref(owner, name)


def job(job_id: str = "a", **changes: Any) -> Job:
    """A job that was just created."""
    values: dict[str, Any] = {
        "request": JobRequest(upload_id="u"), "model": "nano", "filename": "a.mp4", "source_sha256": "cd" * 32, "created_at": 10.0
    }  # fmt: skip
    return Job(job_id=job_id, **{**values, **changes})


def view(address: str = "w:1", *, lost: bool = False, **changes: Any) -> WorkerView:
    """A worker that serves nano."""
    values: dict[str, Any] = {"worker_id": "1", "pool": "p", "state": "ready", "models": (MODEL,), "fingerprint": "f1"}
    status = WorkerStatus(**{**values, **changes})
    return WorkerView(address=address, pool=status.pool, status=status, lost=lost)


SUMMARY = PlanSummary(
    model="nano", pool="", fingerprint="f", source_width=64, source_height=48, width=128, height=96, frames=24, first_frame=0,
    spans=1, segments=3, duration_s=0.96, predicted_s=None, container="mp4", warnings=("one",),
)  # fmt: skip
RESULT = Result(
    filename="a_restored.mp4", media_type="video/mp4", size_bytes=5, sha256="e" * 64, width=128, height=96, frames=24,
    duration_s=0.96, elapsed_s=3.0, stage_seconds={"dit": 2.0},
)  # fmt: skip


def joining(now: float = 12.0) -> jobs.Job:
    """A job whose result is being joined."""
    return jobs.advance(jobs.planned(jobs.advance(job(), State.PLANNING, 11), SUMMARY, now), State.JOINING, now)
