"""What the engine says to the ranks and to the processes that decode and encode, and what they answer. Frozen, no I/O.

Every class here crosses a process border as the fields of one message, of the kind that stands in its docstring.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from fractions import Fraction
from typing import Any, Literal

from services.common.media import CodecParameters, Packet, SpanTask
from services.common.plan import NOISE, RestorePlan, Segment

Passes = Literal["fused", "plain", "stacked"]
"""How the passes between products are computed: by fused kernels, by PyTorch on a GPU, by PyTorch on a CPU."""

LEADER = 0
"""Place of the rank that leads, in its group."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoadOrder:
    """load: the first message to a rank."""

    model: str
    """Name in the model list."""

    directory: str
    """Of its files."""

    device: str
    """auto, cpu or cuda."""

    dtype: str
    """auto or a compute type."""

    index: int
    """Of the rank in its worker, from 0."""

    threads: int
    """CPU threads."""

    sha256: dict[str, str] = field(default_factory=dict)
    """That the model's files must have, by name; empty: whatever they have."""

    place: int = 0
    """Of the rank in its group; :data:`LEADER` leads."""

    group_size: int = 1
    """Ranks that share a span."""

    neighbours: int = 0
    """Other ranks of the worker on its machine. Where the device is the host, all of them take its memory."""

    machine: int = 0
    """Where the rank runs; the server is on machine 0."""

    machines: int = 1
    """That the ranks of its group are on: how they exchange may decide how sums are rounded."""

    device_index: int = 0
    """Of its GPU, on its machine."""

    meeting: str = ""
    """Where the ranks of a group find each other, as PyTorch takes it; empty for a rank alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceCheck:
    """One thing that a rank found out about its device before it loaded a model."""

    name: str
    """What was checked, in a word."""

    passed: bool
    """Whether it is as it must be."""

    detail: str
    """What was found, and what to do where it failed."""

    required: bool = True
    """Whether a rank must not be used without it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RankChecked:
    """checked: a rank has looked at its device; sent before the model is loaded."""

    device: dict[str, str]
    """Name and versions, for people."""

    checks: tuple[DeviceCheck, ...]
    """All of them, failed ones too."""


def rank_checked(values: Mapping[str, Any]) -> RankChecked:
    """Read the fields of a message of kind "checked" back."""
    return RankChecked(device=dict(values["device"]), checks=tuple(DeviceCheck(**check) for check in values["checks"]))


@dataclass(frozen=True, slots=True, kw_only=True)
class RankReady:
    """ready: a rank has loaded its model and restored something with it."""

    facts: dict[str, str]
    """What decides its rounding: device, dtype, kernels, versions, threads."""

    device: str
    """For people."""

    dtype: str
    """Compute type."""

    weight_format: str
    """How the weights are held."""

    parameters: int
    """Number of weights."""

    sha256: dict[str, str]
    """Of the model's files, by name."""

    memory_bytes: int
    """Of its device, or of the host where that is the device."""

    gpu_memory_bytes: int
    """Held on its GPU now; 0 where there is none."""

    passes: Passes
    """How the passes between products are computed: fused, plain or stacked. Decides how much memory they take."""

    available_bytes: int
    """Memory that it could hold on its device; what it holds is counted in."""

    megapixels_per_second: float = 0.0
    """Of small frames, which is less than of large ones: what is known before the first span."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RestoreOrder:
    """restore: a span for a rank."""

    number: int
    """Of the order; the rank's answers carry it."""

    path: str
    """Socket where frames are read and restored ones written."""

    width: int
    """Of the restored frames."""

    height: int
    """Of the restored frames."""

    seed: int
    """Of the noise."""

    first_frame: int
    """Source index of the first frame, context included."""

    cuts: Sequence[int]
    """Source indices, ascending, of frames that begin a shot."""

    colour: str
    """Colour transfer from the source."""

    window_latents: int
    """Latents that the transformer takes at a time."""

    overlap_latents: int
    """Latents that consecutive windows share."""

    bit_depth: int
    """Of the frames on the socket: 8 or 16."""

    noise: str = NOISE
    """How noise is drawn from the seed."""

    alpha: bool = False
    """Whether these have a fourth channel, transparency."""

    input_noise: float = 0.0
    """Noise added to the frames before they are encoded, 0 to 1."""

    latent_noise: float = 0.0
    """How far the model is made to distrust its input, 0 to 1."""

    steps: int = 1
    """From noise to the result."""

    slice_latents: int = 0
    """Latents that the autoencoder takes at a time; 0: the model's own choice. No pixel depends on it."""

    offload: bool = False
    """Whether the transformer's blocks wait in host memory between their turns. No pixel depends on it."""

    park: bool = False
    """Whether encoder and decoder state take turns on the device. No pixel depends on it."""

    preview: bool = False
    """Goes first, between two slices of the span that is in work."""

    ids: dict[str, str] = field(default_factory=dict)
    """What log lines about it carry."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageTime:
    """progress: frames went through a stage."""

    stage: str
    """decode, prepare, vae_encode, dit, vae_decode, colour or encode."""

    seconds: float
    """That it took."""

    frames: int
    """How many."""

    gpu_memory_bytes: int = 0
    """Held on the rank's GPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SegmentReady:
    """segment, with the bytes as payload."""

    segment: Segment
    """Which frames."""

    data: bytes
    """A fragmented MP4."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoDone:
    """done, of a process that decodes and encodes: every segment was sent."""

    concealed_frames: int
    """Frames that could not be decoded and repeat a neighbour."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanProgress:
    """For the caller: how far a span is."""

    stage: str
    """As in :class:`StageTime`, or waiting."""

    frames: int
    """Of the span, that left the stage; context not counted."""

    seconds: float
    """That the stage took since the last word of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SpanResult:
    """For the caller: a span is done."""

    frames: int
    """Restored, context not counted."""

    concealed_frames: int
    """Of these, frames that could not be decoded and repeat a neighbour."""

    megapixels_per_second: float
    """Restored in output megapixels."""

    peak_memory_bytes: int
    """Of the rank, on its GPU, or of its process where there is none."""


SpanEvent = SpanProgress | SegmentReady | SpanResult
"""What a caller hears of its span, in order; the result is the last."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VideoOrder:
    """span: what a process that decodes and encodes has to do."""

    task: SpanTask
    """The span."""

    path: str
    """Socket to listen on for the rank."""

    encoder_threads: int
    """CPU threads of an encoder."""

    ids: dict[str, str] = field(default_factory=dict)
    """What log lines about it carry."""

    def fields(self) -> dict[str, Any]:
        """As values that JSON can carry."""
        codec = asdict(self.task.codec) | {
            "extradata": self.task.codec.extradata.hex(),
            "sample_aspect_ratio": str(self.task.codec.sample_aspect_ratio),
            "frame_rate": str(self.task.codec.frame_rate),
            "side_data": _hex(self.task.codec.side_data),
        }
        task = asdict(self.task) | {
            "codec": codec,
            "time_base": str(self.task.time_base),
            "stored": sorted(self.task.stored),
        }
        return {"task": task, "path": self.path, "encoder_threads": self.encoder_threads, "ids": self.ids}


def video_order(values: Mapping[str, Any]) -> VideoOrder:
    """Read :meth:`VideoOrder.fields` back."""
    task = dict(values["task"])
    codec = dict(task["codec"])
    codec |= {
        "extradata": bytes.fromhex(codec["extradata"]),
        "sample_aspect_ratio": Fraction(codec["sample_aspect_ratio"]),
        "frame_rate": Fraction(codec["frame_rate"]),
        "side_data": _unhex(codec["side_data"]),
    }
    options = tuple((name, value) for name, value in task["plan"].pop("encoder_options"))
    task |= {
        "codec": CodecParameters(**codec),
        "time_base": Fraction(task["time_base"]),
        "frame_pts": tuple(task["frame_pts"]),
        "segments": tuple(Segment(**s) for s in task["segments"]),
        "stored": frozenset(task["stored"]),
        "cuts": tuple(task["cuts"]),
        "plan": RestorePlan(**task["plan"], encoder_options=options),
    }
    return VideoOrder(task=SpanTask(**task), path=values["path"], encoder_threads=values["encoder_threads"], ids=values["ids"])


def packet_fields(packet: Packet) -> dict[str, Any]:
    """The fields of a message of kind "packet"; its data is the payload."""
    return {
        "pts": packet.pts,
        "dts": packet.dts,
        "duration": packet.duration,
        "keyframe": packet.keyframe,
        "side_data": _hex(packet.side_data),
    }


def packet_of(values: Mapping[str, Any], data: bytes | bytearray) -> Packet:
    """Read :func:`packet_fields` back."""
    return Packet(
        pts=values["pts"],
        dts=values["dts"],
        duration=values["duration"],
        keyframe=values["keyframe"],
        data=bytes(data),
        side_data=_unhex(values["side_data"]),
    )


def stage_of(values: Mapping[str, Any]) -> StageTime:
    """The progress in a message's fields, whatever else these hold."""
    return StageTime(**{f.name: values[f.name] for f in fields(StageTime) if f.name in values})


def _hex(data: Mapping[str, bytes]) -> dict[str, str]:
    return {name: value.hex() for name, value in data.items()}


def _unhex(data: Mapping[str, str]) -> dict[str, bytes]:
    return {name: bytes.fromhex(value) for name, value in data.items()}
