"""Shapes of the JSON objects, as JSON Schema."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from typing import Any

from services.common.colours import COLOURS
from services.common.encoders import ENCODERS
from services.common.formats import FORMATS
from services.gateway.jobs import PlanSummary, Result
from services.gateway.rest.encoder import STATUSES

Schema = dict[str, Any]
ID_PATTERN = "^[a-z0-9][a-z0-9-]{0,62}$"
MONTH_PATTERN = "^[0-9]{4}-(0[1-9]|1[0-2])$"
_SIMPLE = {str: "string", int: "integer", float: "number", bool: "boolean"}


def text(about: str, **more: Any) -> Schema:
    """A text."""
    return {"type": "string", "description": about, **more}


def whole(about: str, **more: Any) -> Schema:
    """A whole number."""
    return {"type": "integer", "description": about, **more}


def number(about: str, **more: Any) -> Schema:
    """A number."""
    return {"type": "number", "description": about, **more}


def flag(about: str) -> Schema:
    """True or false."""
    return {"type": "boolean", "description": about}


def maybe(schema: Schema) -> Schema:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]} if "type" in schema else {"anyOf": [schema, {"type": "null"}]}


def reference(name: str) -> Schema:
    """One of SCHEMAS."""
    return {"$ref": f"#/components/schemas/{name}"}


def record(about: str, properties: dict[str, Schema], optional: tuple[str, ...] = ()) -> Schema:
    """An object with these properties, all of which are there but the optional ones."""
    required = [name for name in properties if name not in optional]
    return {"type": "object", "description": about, "properties": properties, "required": required, "additionalProperties": False}


def several(items: Schema) -> Schema:
    """A list."""
    return {"type": "array", "items": items}


def schema_of(cls: type) -> Schema:
    """The object that a dataclass becomes."""
    hints = typing.get_type_hints(cls)
    properties = {field.name: _type_schema(hints[field.name]) for field in dataclasses.fields(cls)}
    return record((cls.__doc__ or "").split("\n")[0], properties)


def _type_schema(hint: Any) -> Schema:
    arguments = typing.get_args(hint)
    origin = typing.get_origin(hint)
    if origin in (types.UnionType, typing.Union):
        return maybe(_type_schema(next(a for a in arguments if a is not types.NoneType)))
    if origin is tuple:
        return several(_type_schema(arguments[0]))
    if origin is Mapping:
        return {"type": "object", "additionalProperties": _type_schema(arguments[1])}
    return {"type": _SIMPLE[hint]}


REQUEST: dict[str, Schema] = {
    "upload_id": text("A complete upload.", pattern=ID_PATTERN),
    "object_uri": text("An object of a bucket that the operator allows, s3://bucket/key."),
    "https_url": text("A file on the web."),
    "model": text("One of /v1/models; absent: the default."),
    "pool": text("Workers that may restore it; absent: any."),
    "scale": number("Output size, times the source's.", minimum=0.1, maximum=16),
    "short_side": whole("Output size by its shorter side, in pixels.", minimum=16, maximum=2**31 - 1),
    "size": text("Output size that fits inside, WIDTHxHEIGHT in pixels.", pattern="^[0-9]{1,9}x[0-9]{1,9}$"),
    "first_frame": whole("First frame to restore, from 0.", minimum=0, maximum=2**63 - 1),
    "end_frame": whole("Frame to stop before; absent or 0: the last one is restored.", minimum=0, maximum=2**63 - 1),
    "start": number("Seconds from the first frame at which to begin; instead of first_frame.", minimum=0, maximum=2**31 - 1),
    "end": number("Seconds at which to stop; instead of end_frame.", minimum=0, maximum=2**31 - 1),
    "seed": whole("Of the noise; absent: 666.", minimum=0, maximum=2**64 - 1),
    "colour": text("How colours of the source are kept.", enum=["", *COLOURS]),
    "preview": flag("Goes before other work; for short ranges that somebody is looking at."),
    "format": text("Of the result; absent: what fits the source.", enum=["", *FORMATS]),
    "crf": whole("Constant rate factor of the video encoder, 0 (largest file) to 51; absent: 14.", minimum=0, maximum=51),
    "encoder": text(
        "Of a video; absent: x264. nvenc is an NVIDIA card's, refused where no worker has one.", enum=["", *ENCODERS]
    ),
    "input_noise": number("Noise added to the frames, 0 to 1.", minimum=0, maximum=1),
    "latent_noise": number("How far the model is made to distrust its input, 0 to 1.", minimum=0, maximum=1),
    "steps": whole("From noise to the result; absent: 1.", minimum=1, maximum=2**31 - 1),
    "cfg_scale": number("Guidance by a negative text; absent: 1, none."),
    "result_uri": text("Where the result is written too, s3://bucket/key."),
    "webhook_url": text("Who is told when it has ended."),
    "labels": {"type": "object", "description": "Free text, at most 16.", "additionalProperties": {"type": "string"}},
}
"""What can be asked for; everything may be absent."""

_IGNORED = {"prompt": text("Ignored; OpenAI's clients send it.")}
_FILE = {"type": "string", "format": "binary", "description": "The video, picture, or zip of numbered pictures."}
_WORK = record(
    "What is being done.",
    {
        "stage": text("Stage of the work; empty: none."),
        "stage_fraction": number("How much of a stage before restoring is done, 0 to 1."),
        "frames_done": whole("Restored."),
        "frames_total": whole("To restore; 0: not known yet."),
        "frames_per_second": number("Since this run began."),
        "seconds_left": maybe(number("Predicted.")),
        "segments_done": whole("Stored."),
        "segments_total": whole("In the plan."),
        "stage_seconds": {"type": "object", "additionalProperties": {"type": "number"}, "description": "Work by stage."},
    },
)
_VIDEO = record(
    "A video that is, or will be, restored.",
    {
        "id": text("Names it.", pattern=ID_PATTERN),
        "object": text("Always video.", const="video"),
        "status": text("Where it is.", enum=list(dict.fromkeys(STATUSES.values()))),
        "progress": whole("Percent that is done.", minimum=0, maximum=100),
        "created_at": whole("Seconds since 1970."),
        "started_at": maybe(whole("When restoring began.")),
        "completed_at": maybe(whole("When it ended, well or not.")),
        "model": text("That restores it."),
        "size": maybe(text("Of the result, WIDTHxHEIGHT, once planned.")),
        "seconds": maybe(text("Duration of the result, once planned.")),
        "error": maybe(
            record("Why it failed.", {"code": text("Name of the error, see docs/errors.md."), "message": text("A sentence.")})
        ),
        "filename": text("Of the source."),
        "state": text("The status, more exactly.", enum=[state.lower() for state in STATUSES]),
        "work": reference("Work"),
        "request": reference("VideoRequest"),
        "plan": maybe(reference("Plan")),
        "result": maybe(reference("Result")),
        "notes": several({"type": "string"}),
    },
)
_UPLOAD = record(
    "A file that arrives, or has arrived.",
    {
        "id": text("Names it.", pattern=ID_PATTERN),
        "object": text("Always upload.", const="upload"),
        "status": text("Whether jobs can use it.", enum=["pending", "completed"]),
        "filename": text("For people."),
        "bytes": whole("Of the whole file; 0: not known yet."),
        "received_bytes": whole("Kept so far: the offset to go on from."),
        "sha256": maybe(text("Of the whole file, once completed.")),
        "created_at": whole("Seconds since 1970."),
    },
)
_MODEL = record(
    "A model that restores videos.",
    {
        "id": text("Its name."), "object": text("Always model.", const="model"), "created": whole("Always 0."),
        "owned_by": text("Always seedvr2."), "title": text("For people."), "default": flag("Of requests that name none."),
        "ready": flag("Some worker serves it now."), "parameters": whole("How many it has."),
        "colours": several({"type": "string"}), "max_steps": whole("That it can take."), "pools": several({"type": "string"}),
        "installed": maybe(text("How it is in the workers' model directories.")),
    },
)  # fmt: skip
_USED = record(
    "What somebody used in the month.",
    {
        "owner": maybe(text("Under which name it is kept; told to administrators only.")),
        "subject": text("Who it is; empty without authentication."),
        "jobs": whole("Created. What a job uses counts in the month in which it was created."),
        "gpu_seconds": number("Of the stages on devices, times the devices that shared a span."),
        "megapixels": number("Of restored frames."),
    },
)
_QUOTA = record(
    "What the caller may use; null: as much as they want.",
    {
        "active_jobs": maybe(number("Jobs that wait or run.")),
        "gpu_seconds_month": maybe(number("In a month.")),
        "megapixels_month": maybe(number("In a month.")),
    },
)
_USAGE = record(
    "What was used, and may be.",
    {
        "object": text("Always usage.", const="usage"), "month": text("YYYY-MM, in UTC.", pattern=MONTH_PATTERN),
        "data": several(reference("Used")), "quota": reference("Quota"),
        "active_jobs": whole("Jobs of the caller that wait or run now."),
    },
)  # fmt: skip
_ERROR_FIELDS = {
    "message": text("What is wrong, and what to do."),
    "type": text("Kind of error.", enum=["invalid_request_error", "authentication_error", "permission_error",
                                         "rate_limit_error", "server_error"]),
    "code": maybe(text("Name of the error, see docs/errors.md.")),
    "param": maybe(text("The field that is wrong.")),
}  # fmt: skip
_BEGIN = record(
    "What is known of the file.",
    {
        "id": text("Names it; absent: it gets one.", pattern=ID_PATTERN),
        "filename": text("For people; names the result, too.", pattern=r"^[^\x00-\x1f\x7f/\\]{1,255}$"),
        "bytes": whole("Of the whole file; absent or 0: not known yet.", minimum=0, maximum=2**63 - 1),
    },
    optional=("id", "bytes"),
)


def _page(name: str) -> Schema:
    ends = {"first_id": maybe(text("Of the page's first.")), "last_id": maybe(text("Of its last; what comes next is after it."))}
    more = {"has_more": flag("There is another page.")}
    listed = {"object": text("Always list.", const="list"), "data": several(reference(name))}
    return record("A page of a list.", listed | ends | more)


SCHEMAS: dict[str, Schema] = {
    "Video": _VIDEO,
    "VideoList": _page("Video"),
    "VideoRequest": record("What was asked for.", REQUEST, optional=tuple(REQUEST)),
    "VideoCreate": record("A video to restore.", REQUEST | _IGNORED, optional=(*REQUEST, *_IGNORED)),
    "VideoForm": record(
        "A video to restore, with its file.", {"file": _FILE, "input_reference": _FILE} | REQUEST | _IGNORED,
        optional=("file", "input_reference", *REQUEST, *_IGNORED),
    ),
    "VideoDeleted": record(
        "A video that is gone.",
        {"id": text("It was."), "object": text("Always video.deleted.", const="video.deleted"), "deleted": flag("Always true.")},
    ),
    "Work": _WORK,
    "Plan": schema_of(PlanSummary),
    "Result": schema_of(Result),
    "Upload": _UPLOAD,
    "UploadCreate": _BEGIN,
    "Model": _MODEL,
    "ModelList": record("All models.", {"object": text("Always list.", const="list"), "data": several(reference("Model"))}),
    "Usage": _USAGE,
    "Used": _USED,
    "Quota": _QUOTA,
    "Error": record("What went wrong.", {"error": record("The error.", _ERROR_FIELDS)}),
}  # fmt: skip
"""Every object by its name."""
