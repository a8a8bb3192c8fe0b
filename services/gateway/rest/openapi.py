"""The OpenAPI document of the HTTP API."""

from collections.abc import Sequence
from typing import Any

from services.gateway.rest.schemas import ID_PATTERN, MONTH_PATTERN, SCHEMAS, Schema, reference, text, whole

Operation = dict[str, Any]
_JSON = "application/json"
_ERRORS = {
    "400": "What was sent can't be used.", "401": "Who calls is not known.", "403": "They may not do that.",
    "404": "There is no such thing.", "409": "Not now, or the id is taken.", "413": "Larger than allowed.",
    "416": "The thing has no such part.", "429": "Too much is waiting, or too much was used.", "500": "Our fault.",
    "501": "Not offered here.", "503": "Not now; try again.", "507": "No space is left.",
}  # fmt: skip
_ALWAYS = ("400", "401", "403", "429", "500", "503")
_VIDEO_EXAMPLE = {
    "id": "b2f0c6d1a4e89735", "object": "video", "status": "in_progress", "progress": 41, "created_at": 1767225600,
    "started_at": 1767225604, "completed_at": None, "model": "seedvr2-3b", "size": "1280x720", "seconds": "12.48", "error": None,
    "filename": "holiday.mp4", "state": "restoring",
    "work": {"stage": "dit", "stage_fraction": 0.0, "frames_done": 125, "frames_total": 312, "frames_per_second": 4.2,
             "seconds_left": 44.5, "segments_done": 2, "segments_total": 7, "stage_seconds": {"dit": 21.5}},
    "request": {"upload_id": "form-0f3c9a5be1d27468", "scale": 2.0}, "plan": None, "result": None, "notes": [],
}  # fmt: skip
_UPLOAD_EXAMPLE = {
    "id": "holiday", "object": "upload", "status": "pending", "filename": "holiday.mp4", "bytes": 5242880,
    "received_bytes": 1048576, "sha256": None, "created_at": 1767225600,
}  # fmt: skip


def document(version: str) -> dict[str, Any]:
    """The whole document."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "SeedVR2",
            "version": version,
            "description": "Restores and enlarges videos, in the style of OpenAI's video API. See docs/rest.md.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": _paths(),
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "Where the operator asks for one."}},
        },
        "security": [{"token": []}, {}],
    }


def _paths() -> dict[str, dict[str, Operation]]:
    video, upload, model = _in_path("video_id"), _in_path("upload_id"), _in_path("model", pattern=None)
    return {
        "/v1/videos": {"post": _create_video(), "get": _list_videos()},
        "/v1/videos/{video_id}": {
            "get": _operation("getVideo", "How a video is", _video(), [video], ("404",)),
            "delete": _operation(
                "deleteVideo", "Remove a video that has ended, with its files", _answer("It is gone.", "VideoDeleted"), [video],
                ("404", "409"),
            ),
        },
        "/v1/videos/{video_id}/content": {"get": _content(video), "head": _content(video, head=True)},
        "/v1/videos/{video_id}/events": {"get": _watch(video)},
        "/v1/videos/{video_id}/cancel": {"post": _operation("cancelVideo", "End a video now", _video(), [video], ("404", "409"))},
        "/v1/videos/{video_id}/retry": {
            "post": _operation("retryVideo", "Start a failed or cancelled one again", _video(), [video], ("404", "409", "507"))
        },
        "/v1/uploads": {"post": _create_upload()},
        "/v1/uploads/{upload_id}": {
            "get": _operation("getUpload", "How far an upload is", _upload(), [upload], ("404",)),
            "head": _operation("headUpload", "The same in headers", _upload(head=True), [upload], ("404",), head=True),
            "patch": _write_upload(upload),
            "delete": _operation(
                "deleteUpload", "Remove an upload", {"204": {"description": "It is gone."}}, [upload], ("404", "409")
            ),
        },
        "/v1/usage": {"get": _usage()},
        "/v1/models": {"get": _operation("listModels", "Models that jobs can name", _answer("They are.", "ModelList"))},
        "/v1/models/{model}": {"get": _operation("getModel", "One of them", _answer("It is.", "Model"), [model], ("404",))},
        "/healthz": {"get": _public("live", "Whether the process lives", ("200",))},
        "/readyz": {"get": _public("ready", "Whether requests should come here", ("200", "503"))},
        "/openapi.json": {"get": _document()},
    }  # fmt: skip


def _operation(
    name: str, summary: str, answers: dict[str, Any], parameters: Sequence[Schema] = (), errors: Sequence[str] = (),
    *, head: bool = False, **more: Any,
) -> Operation:  # fmt: skip
    refusals = {status: _error(status, head=head) for status in sorted({*errors, *_ALWAYS})}
    return {
        "operationId": name, "summary": summary, "parameters": [*parameters, _REQUEST_ID], "responses": {**answers, **refusals},
        **more,
    }  # fmt: skip


_REQUEST_ID: Schema = {
    "name": "X-Request-Id", "in": "header", "description": "Names the request in logs; absent: it gets one.",
    "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:-]{1,128}$"},
}  # fmt: skip


def _error(status: str, *, head: bool) -> dict[str, Any]:
    if head:
        return {"description": _ERRORS[status]}
    example = {"error": {"message": _ERRORS[status], "type": "invalid_request_error", "code": None, "param": None}}
    return {"description": _ERRORS[status], "content": {_JSON: {"schema": reference("Error"), "example": example}}}


def _answer(about: str, name: str, example: Any = None, status: str = "200", **more: Any) -> dict[str, Any]:
    content = {"schema": reference(name)} | ({"example": example} if example is not None else {})
    return {status: {"description": about, "content": {_JSON: content}, **more}}


def _video() -> dict[str, Any]:
    return _answer("The video.", "Video", _VIDEO_EXAMPLE)


def _upload(status: str = "200", *, head: bool = False, **headers: Schema) -> dict[str, Any]:
    offsets = {name: {"schema": {"type": "string"}} for name in ("Upload-Offset", "Upload-Length", "Upload-Complete")}
    if head:
        return {status: {"description": "The upload.", "headers": offsets}}
    return _answer("The upload.", "Upload", _UPLOAD_EXAMPLE, status, headers=offsets | headers)


def _in_path(name: str, pattern: str | None = ID_PATTERN) -> Schema:
    schema = {"type": "string", "minLength": 1} | ({"pattern": pattern} if pattern else {})
    return {"name": name, "in": "path", "required": True, "schema": schema}


def _query(name: str, schema: Schema) -> Schema:
    return {"name": name, "in": "query", "schema": schema}


def _header(name: str, schema: Schema, *, required: bool = False) -> Schema:
    return {"name": name, "in": "header", "required": required, "schema": schema}


def _create_video() -> Operation:
    key = _header("Idempotency-Key", text("The same key gives the same video.", pattern="^[ -~]{1,255}$"))
    body = {
        "required": True,
        "content": {
            "multipart/form-data": {"schema": reference("VideoForm")},
            _JSON: {"schema": reference("VideoCreate"), "example": {"upload_id": "holiday", "scale": 2}},
        },
    }
    errors = ("404", "409", "413", "416", "501", "507")
    return _operation("createVideo", "Restore a video", _video(), [key], errors, requestBody=body)


def _list_videos() -> Operation:
    parameters = [
        _query("limit", whole("Videos of a page.", minimum=1, maximum=100, default=20)),
        _query("order", text("By age.", enum=["desc", "asc"], default="desc")),
        _query("after", text("Id of the last video of the page before.")),
        _query("status", text("Those in one status only.", enum=SCHEMAS["Video"]["properties"]["status"]["enum"])),
    ]
    return _operation("listVideos", "Videos, newest first", _answer("A page.", "VideoList"), parameters, ("404",))


def _content(video: Schema, *, head: bool = False) -> Operation:
    parameters = [
        video,
        _query("variant", text("Which file.", enum=["video", "source", "thumbnail"], default="video")),
        _query("frame", whole("Of a thumbnail, from 0.", minimum=0, maximum=2**63 - 1, default=0)),
        _query("max_side", whole("Of a thumbnail, in pixels.", minimum=1, maximum=4096, default=512)),
        *(_header(name, {"type": "string"}) for name in ("Range", "If-Range", "If-None-Match")),
    ]
    data = {} if head else {"content": {"*/*": {"schema": {"type": "string", "format": "binary"}}}}
    answers: dict[str, Any] = {
        "200": {"description": "The whole file.", **data}, "206": {"description": "The part that Range asks for.", **data},
        "304": {"description": "It is what If-None-Match says."},
    }  # fmt: skip
    if not head:
        location = {"Location": {"schema": {"type": "string", "format": "uri"}}}
        about = "The file is there, for anybody who has this address, for a short time; where the operator has it so."
        answers["307"] = {"description": about, "headers": location}
    errors = ("404", "409", "416")
    if head:
        return _operation("headVideoContent", "The same in headers", answers, parameters, errors, head=True)
    return _operation("getVideoContent", "The restored file, its source, or a frame", answers, parameters, errors)


def _watch(video: Schema) -> Operation:
    about = (
        "Events `progress` at once and after each change, `ended` at last, with a Video as data; comments in between keep the "
        "connection alive."
    )
    parts = {name: {"type": "string"} for name in ("event", "id", "data")}
    stream = {"description": about, "content": {"text/event-stream": {"schema": {"type": "object", "properties": parts}}}}
    answers = {"200": stream, "204": {"description": "It has ended, and Last-Event-ID says that this is known."}}
    parameters = [video, _header("Last-Event-ID", {"type": "string"})]
    return _operation("watchVideo", "A video as it goes on, until it has ended", answers, parameters, ("404",))


def _create_upload() -> Operation:
    example = {"filename": "holiday.mp4", "bytes": 5242880}
    body = {"required": True, "content": {_JSON: {"schema": reference("UploadCreate"), "example": example}}}
    answers = _upload("201", Location={"schema": {"type": "string"}})
    return _operation("createUpload", "Begin an upload in pieces", answers, [], ("409", "413", "507"), requestBody=body)


def _write_upload(upload: Schema) -> Operation:
    parameters = [
        upload,
        _header("Upload-Offset", whole("Bytes that are there already.", minimum=0, maximum=10**18 - 1), required=True),
        _header("Upload-Complete", text("?1: these are the last bytes.", enum=["?0", "?1"])),
    ]
    body = {"content": {"application/offset+octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    return _operation("writeUpload", "Continue an upload", _upload(), parameters, ("404", "409", "413", "507"), requestBody=body)


def _usage() -> Operation:
    parameters = [
        _query("month", text("YYYY-MM, in UTC; absent: this one.", pattern=MONTH_PATTERN)),
        _query("all_owners", text("true: what everybody used, for administrators.", enum=["false", "true"], default="false")),
    ]
    return _operation("getUsage", "What was used in a month, and may be", _answer("It is.", "Usage"), parameters)


def _public(name: str, summary: str, statuses: tuple[str, ...]) -> Operation:
    words = {"description": summary, "content": {"text/plain": {"schema": {"type": "string"}}}}
    return {"operationId": name, "summary": summary, "security": [], "responses": dict.fromkeys(statuses, words)}


def _document() -> Operation:
    answer = {"200": {"description": "OpenAPI 3.1.", "content": {_JSON: {"schema": {"type": "object"}}}}}
    return {"operationId": "describe", "summary": "This document", "security": [], "responses": answer}
