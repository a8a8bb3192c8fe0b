"""What a person chose on the page, checked and turned into a job request. Pure."""

from dataclasses import dataclass

from google.protobuf import duration_pb2

from services.common.errors import InvalidOption
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb

PREVIEW_S = 2.0
"""Length of a preview."""

MAX_SEED = 2**53 - 1
"""Largest seed that survives a browser, whose numbers are doubles."""

SIZES = {
    "Same size": "same",
    "Scale": "scale",
    "Shorter side": "short_side",
    "Fit into a box": "box",
}
"""Ways to say how large the result shall be."""

CONTAINERS = {
    "Like the source": "",
    "MP4": "mp4",
    "Matroska (mkv)": "mkv",
    "PNG, one picture": "png",
    "JPEG, one picture": "jpg",
    "WebP without loss, one picture": "webp",
    "TIFF, one picture": "tiff",
    "Zip of PNGs, a picture for each frame": "zip",
}
"""Forms of the result."""

COLOURS = {
    pb.COLOUR_MODE_WAVELET: "Wavelet: the source's colours, recommended",
    pb.COLOUR_MODE_ADAIN: "AdaIN: the source's mean and contrast in each channel",
    pb.COLOUR_MODE_LAB: "Lab: the source's mix of colours, and some of its light",
    pb.COLOUR_MODE_HSV: "HSV: as strong colours as the source's, hue by hue",
    pb.COLOUR_MODE_WAVELET_ADAPTIVE: "Wavelet, adaptive: weaker where colours come out too strong",
    pb.COLOUR_MODE_NONE: "None: as the model paints it",
}
"""Colour modes in the order in which the page offers them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choices:
    """The form as the browser sent it: any field can be empty or of a wrong value."""

    upload_id: str
    """A complete upload."""

    model: str | None
    """Name of a model; None takes the gateway's default."""

    size: str
    """One of the values of SIZES."""

    scale: float | None = None
    """Result pixels per source pixel along one side."""

    short_side: float | None = None
    """Pixels."""

    width: float | None = None
    """Of the box, pixels."""

    height: float | None = None
    """Of the box, pixels."""

    seed: float | None = None
    """Whole number from 0 to MAX_SEED; None takes the gateway's default."""

    colour: int | None = None
    """A ColourMode; None takes the model's default."""

    container: str | None = None
    """One of the values of CONTAINERS; None takes what fits the source."""

    crf: float | None = None
    """Constant rate factor; None takes the gateway's default."""

    input_noise: float | None = None
    """Noise on the frames, 0 to 1; None: none."""

    latent_noise: float | None = None
    """Distrust in the input, 0 to 1; None: none."""

    preview_start_s: float | None = None
    """Where a preview begins, seconds from the first frame."""


def job_request(choices: Choices) -> pb.JobRequest:
    """The request for the whole video.

    Raises:
        InvalidOption: something is missing or out of bounds; ``field`` names it.
    """
    if not choices.upload_id:
        raise InvalidOption("Choose a video or picture first.", field="request.source.upload_id")
    request = pb.JobRequest(
        source=pb.Source(upload_id=choices.upload_id),
        model=choices.model or "",
        target=_target(choices),
        colour=pb.ColourMode.Name(choices.colour or 0),
        priority=pb.PRIORITY_BATCH,
        container=choices.container or "",
    )
    if choices.seed is not None:
        request.seed = _whole(choices.seed, "The seed", "request.seed", 0, MAX_SEED)
    if choices.crf is not None:
        request.crf = _whole(choices.crf, "The quality factor", "request.crf", 0, 51)
    request.input_noise = _share(choices.input_noise, "The noise on the frames", "request.input_noise")
    request.latent_noise = _share(choices.latent_noise, "The freedom", "request.latent_noise")
    return request


def preview_request(whole: pb.JobRequest, start_s: float | None) -> pb.JobRequest:
    """The same over PREVIEW_S seconds from ``start_s`` on, ahead of other work.

    Raises:
        InvalidOption: the start is below 0.
    """
    start = start_s or 0.0
    if not 0 <= start < 1e6:
        raise InvalidOption("A preview can't begin before the video does.", field="request.range.time.start")
    request = pb.JobRequest()
    request.CopyFrom(whole)
    request.priority = pb.PRIORITY_PREVIEW
    request.range.time.CopyFrom(pb.TimeRange(start=_duration(start), end=_duration(start + PREVIEW_S)))
    return request


def whole_request(preview: pb.JobRequest) -> pb.JobRequest:
    """What a preview was a preview of."""
    request = pb.JobRequest()
    request.CopyFrom(preview)
    request.ClearField("range")
    request.priority = pb.PRIORITY_BATCH
    return request


def is_preview(request: pb.JobRequest) -> bool:
    """Whether a job restores a part of its video only."""
    return bool(request.HasField("range"))


def _target(choices: Choices) -> pb.Target | None:
    if choices.size == "scale":
        scale = choices.scale or 0.0
        if not 0 < scale <= 16:
            raise InvalidOption("The scale must be above 0 and at most 16.", field="request.target.scale")
        return pb.Target(scale=scale)
    if choices.size == "short_side":
        return pb.Target(short_side=_pixels(choices.short_side, "The shorter side", "request.target.short_side"))
    if choices.size == "box":
        width = _pixels(choices.width, "The width", "request.target.box.width")
        height = _pixels(choices.height, "The height", "request.target.box.height")
        return pb.Target(box=pb.Box(width=width, height=height))
    return None


def _pixels(value: float | None, name: str, field: str) -> int:
    return _whole(value, f"{name} in pixels", field, 16, 16384)


def _whole(value: float | None, name: str, field: str, least: int, most: int) -> int:
    if value is None or value != value or value % 1 or not least <= value <= most:
        raise InvalidOption(f"{name} must be a whole number from {least:,} to {most:,}.", field=field)
    return int(value)


def _share(value: float | None, name: str, field: str) -> float:
    if value is not None and not 0 <= value <= 1:
        raise InvalidOption(f"{name} must be from 0 to 1.", field=field)
    return value or 0.0


def _duration(seconds: float) -> duration_pb2.Duration:
    nanos = round(seconds * 1e9)
    return duration_pb2.Duration(seconds=nanos // 10**9, nanos=nanos % 10**9)
