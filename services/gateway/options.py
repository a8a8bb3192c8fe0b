"""What is wrong with a request before anything is read. Pure."""

import math
import re
from collections.abc import Container

from services.common.encoders import ENCODERS
from services.common.errors import InvalidOption, NotSupported
from services.common.formats import FORMATS
from services.gateway.job_request import JobRequest

_ID = re.compile(r"[a-z0-9][a-z0-9-]{0,62}")
_MAX_LABELS = 16
_MAX_LABEL_CHARACTERS = 256
_NOT_EVERYWHERE = {
    "object_uri": ("request.source.object_uri", "Objects of a bucket can't be read here; upload the file."),
    "https_url": ("request.source.https_url", "Videos on the web can't be read here; download it and upload the file."),
    "result_uri": ("request.result_uri", "Results can't be written to a bucket here; download the result."),
    "webhook_url": ("request.webhook_url", "Nobody can be told over the web here; watch the job."),
}


def is_id(text: str) -> bool:
    """Whether ``text`` can be an id."""
    return _ID.fullmatch(text) is not None


def check_id(text: str, field: str) -> None:
    """Raises InvalidOption where ``text`` can't be an id."""
    if not is_id(text):
        raise InvalidOption(
            f"The id {text!r} can't be used: 1 to 63 of a-z, 0-9 and -, beginning with a letter or digit.", field=field
        )


def check_request(request: JobRequest, offered: Container[str] = ()) -> None:
    """Everything that can be seen without the source and without a worker; ``offered`` are fields that not everybody takes.

    Raises:
        InvalidOption: a value that can't be used.
        NotSupported: something that this installation doesn't offer.
    """
    for name, (field, text) in _NOT_EVERYWHERE.items():
        if getattr(request, name) and name not in offered:
            raise NotSupported(text, field=field)
    if not (request.upload_id or request.is_remote):
        raise InvalidOption("The request names no source; upload a file and give its upload_id.", field="request.source")
    if request.upload_id:
        check_id(request.upload_id, "request.source.upload_id")
    _check_target(request)
    _check_range(request)
    _check_encoding(request)
    _check_strength(request)
    _check_labels(request)


def _check_target(request: JobRequest) -> None:
    if request.scale is not None and not (math.isfinite(request.scale) and 0.1 <= request.scale <= 16):
        raise InvalidOption(f"The scale is {request.scale:g}; give 0.1 to 16.", field="request.target.scale")
    if request.short_side is not None and request.short_side < 16:
        raise InvalidOption(
            f"The short side is {request.short_side} pixels; give at least 16.", field="request.target.short_side"
        )
    if request.box is not None and min(request.box) < 16:
        width, height = request.box
        raise InvalidOption(f"The box is {width}×{height} pixels; give at least 16×16.", field="request.target.box")


def _check_range(request: JobRequest) -> None:
    if request.frames is not None:
        first, end = request.frames
        if first < 0 or end < 0 or (end and end <= first):
            raise InvalidOption(
                f"The range [{first}, {end}) has no frames; give first < end, or end 0 for the last frame.",
                field="request.range.frames",
            )
    if request.time_ns is not None:
        start, stop = request.time_ns
        if start < 0 or (stop is not None and stop <= start):
            raise InvalidOption("The time range is empty or negative; give 0 <= start < end.", field="request.range.time")


def _check_encoding(request: JobRequest) -> None:
    if request.container not in ("", *FORMATS):
        raise InvalidOption(
            f"There is no container {request.container!r} here; give one of {', '.join(FORMATS)}.", field="request.container"
        )
    if request.crf is not None and not 0 <= request.crf <= 51:
        raise InvalidOption(f"The crf is {request.crf}; give 0 (largest file) to 51.", field="request.crf")
    if request.encoder not in ("", *ENCODERS):
        raise InvalidOption(
            f"There is no encoder {request.encoder!r} here; give one of {', '.join(ENCODERS)}, or leave it out.",
            field="request.encoder",
        )


def _check_strength(request: JobRequest) -> None:
    for name in ("input_noise", "latent_noise"):
        value = getattr(request, name)
        if not 0 <= value <= 1:
            raise InvalidOption(f"{name} is {value:g}; give 0 (none) to 1.", field=f"request.{name}")
    if request.steps < 1:
        raise InvalidOption(f"There are {request.steps} steps; give 1, or leave them out.", field="request.steps")
    if not math.isfinite(request.cfg_scale):
        raise InvalidOption("cfg_scale is not a number; give 1, or leave it out.", field="request.cfg_scale")


def _check_labels(request: JobRequest) -> None:
    if len(request.labels) > _MAX_LABELS:
        raise InvalidOption(f"There are {len(request.labels)} labels; give at most {_MAX_LABELS}.", field="request.labels")
    for name, value in request.labels:
        if len(name) > _MAX_LABEL_CHARACTERS or len(value) > _MAX_LABEL_CHARACTERS:
            raise InvalidOption(f"A label is longer than {_MAX_LABEL_CHARACTERS} characters; shorten it.", field="request.labels")
