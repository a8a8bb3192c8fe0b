"""Files between browser and gateway: uploads in pieces, videos by range, HLS, single frames. Nothing is kept here.

PUT    /files/uploads/<id>                begin: JSON {"filename", "size_bytes"}; the browser chooses the id
PATCH  /files/uploads/<id>                bytes from header Upload-Offset on; Upload-Complete: ?1 ends the file
GET    /files/uploads/<id>                how far it is, as JSON and in headers; HEAD: headers only
DELETE /files/uploads/<id>
GET    /files/jobs/<id>/result            with ranges; ?download=1 to save it
GET    /files/jobs/<id>/source            with ranges
GET    /files/jobs/<id>/hls/index.m3u8    what is restored so far; segments are <n>.mp4 beside it
GET    /files/jobs/<id>/frames/<of>/<n>.png   of: source or result; ?max_side=<pixels>
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from services.common.client import GatewayClient
from services.common.errors import InvalidInput, InvalidOption, NotFound, ServiceError, TooLarge
from services.common.http.files import body_pieces, file_answer
from services.common.http.headers import whole_header
from services.common.metrics import UiMetrics
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.ui.answers import error_answer
from services.ui.links import checked_id
from services.ui.settings import UiSettings
from services.ui.words import size_words

_Handler = Callable[[Request], Awaitable[Response]]
_MAX_JSON_BYTES = 16 << 10
_MAX_SIDE = 4096
_MAX_DIGITS = 9
# Halves of characters, which JSON can have and nothing else.
_LONE = re.compile("[\ud800-\udfff]")
_FRAME_OF = {"source": pb.FRAME_OF_SOURCE, "result": pb.FRAME_OF_RESULT}
_FRAME_HEADERS = {"Cache-Control": "private, max-age=300", "Vary": "Cookie"}


class FileRoutes:
    """The routes; each request is one or two calls to the gateway."""

    def __init__(self, client: GatewayClient, settings: UiSettings, metrics: UiMetrics) -> None:
        self._client = client
        self._settings = settings
        self._metrics = metrics

    def routes(self) -> list[Route]:
        """All routes, to be added to an application."""
        job = "/files/jobs/{job_id}"
        return [
            self._route("/files/uploads/{upload_id}", "upload", self._begin, "PUT"),
            self._route("/files/uploads/{upload_id}", "upload", self._write, "PATCH"),
            self._route("/files/uploads/{upload_id}", "upload", self._progress, "GET"),
            self._route("/files/uploads/{upload_id}", "upload", self._remove, "DELETE"),
            self._route(f"{job}/result", "result", self._result, "GET"),
            self._route(f"{job}/source", "source", self._source, "GET"),
            self._route(f"{job}/hls/index.m3u8", "playlist", self._playlist, "GET"),
            self._route(job + "/hls/{segment}.mp4", "segment", self._segment, "GET"),
            self._route(job + "/frames/{of}/{frame}.png", "frame", self._frame, "GET"),
        ]

    def _route(self, path: str, name: str, handler: _Handler, method: str) -> Route:
        async def answer(request: Request) -> Response:
            try:
                response = await handler(request)
            except ServiceError as error:
                response = error_answer(error)
            self._metrics.requests.labels(route=name, status=str(response.status_code)).inc()
            return response

        return Route(path, answer, methods=[method])

    async def _begin(self, request: Request) -> Response:
        upload_id = _upload_id(request)
        filename, size_bytes = _begin_fields(await _small_json(request))
        if size_bytes > self._settings.max_upload_bytes:
            raise TooLarge(
                f"The file has {size_words(size_bytes)}; at most {size_words(self._settings.max_upload_bytes)} are taken here."
            )
        return _upload_answer(await self._client.create_upload(filename, size_bytes, upload_id))

    async def _write(self, request: Request) -> Response:
        upload_id, offset = _upload_id(request), whole_header(request, "upload-offset")
        limit = min(self._settings.max_piece_bytes, self._settings.max_upload_bytes - offset)
        if limit < 0 or whole_header(request, "content-length", 0) > limit:
            raise TooLarge(
                f"One upload request may bring at most {size_words(self._settings.max_piece_bytes)}"
                f" and a whole file at most {size_words(self._settings.max_upload_bytes)} here."
            )
        upload = await self._client.write_upload(upload_id, offset, body_pieces(request, limit), finish=False)
        self._metrics.upload_bytes.inc(max(0, upload.received_bytes - offset))
        if request.headers.get("upload-complete") == "?1" and upload.received_bytes == upload.size_bytes:
            upload = await self._client.write_upload(upload_id, upload.received_bytes, _nothing(), finish=True)
        return _upload_answer(upload)

    async def _progress(self, request: Request) -> Response:
        return _upload_answer(await self._client.get_upload(_upload_id(request)))

    async def _remove(self, request: Request) -> Response:
        await self._client.delete_upload(_upload_id(request))
        return Response(status_code=204)

    async def _result(self, request: Request) -> Response:
        job_id = _job_id(request)
        return await self._file(
            request,
            lambda offset, length: self._client.read_result(job_id, offset, length),
            attachment=request.query_params.get("download") == "1",
        )

    async def _source(self, request: Request) -> Response:
        job_id = _job_id(request)
        return await self._file(request, lambda offset, length: self._client.read_source(job_id, offset, length))

    async def _segment(self, request: Request) -> Response:
        job_id, segment = _job_id(request), _number(request, "segment")
        return await self._file(request, lambda offset, length: self._client.read_result(job_id, offset, length, segment=segment))

    async def _file(self, request: Request, read: Any, *, attachment: bool = False) -> Response:
        count = self._metrics.download_bytes.inc
        return await file_answer(request, read, attachment=attachment, on_bytes=count, error_answer=error_answer)

    async def _playlist(self, request: Request) -> Response:
        playlist = await self._client.playlist(_job_id(request))
        headers = {"Cache-Control": "no-store"}
        return Response(playlist.m3u8, media_type="application/vnd.apple.mpegurl", headers=headers)

    async def _frame(self, request: Request) -> Response:
        job_id, frame = _job_id(request), _number(request, "frame")
        of = _FRAME_OF.get(request.path_params["of"])
        if of is None:
            raise NotFound("There are frames of the source and of the result only.")
        image = await self._client.frame(job_id, of, frame, _max_side(request))
        self._metrics.download_bytes.inc(len(image))
        return Response(image, media_type="image/png", headers=_FRAME_HEADERS)


def _upload_id(request: Request) -> str:
    return checked_id(request.path_params["upload_id"])


def _job_id(request: Request) -> str:
    return checked_id(request.path_params["job_id"])


def _number(request: Request, name: str) -> int:
    text = request.path_params[name]
    # One that no message can carry isn't there either.
    if not (text.isascii() and text.isdigit()) or len(text) > _MAX_DIGITS:
        raise NotFound(f"There is no {name} {text[:_MAX_DIGITS]}.")
    return int(text)


def _max_side(request: Request) -> int:
    text = request.query_params.get("max_side", "0")
    if not (text.isascii() and text.isdigit()) or len(text) > 18 or int(text) > _MAX_SIDE:
        raise InvalidOption(f"max_side is a whole number of pixels, at most {_MAX_SIDE}.", field="max_side")
    return int(text)


async def _nothing() -> AsyncIterator[bytes]:
    for piece in list[bytes]():
        yield piece


async def _small_json(request: Request) -> Any:
    body = bytearray()
    async for data in request.stream():
        body += data
        if len(body) > _MAX_JSON_BYTES:
            raise TooLarge("This request is larger than anything that is sent here.")
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InvalidInput("The request must be JSON.") from error


def _begin_fields(body: Any) -> tuple[str, int]:
    filename, size_bytes = (body.get("filename"), body.get("size_bytes")) if isinstance(body, dict) else (None, None)
    if not isinstance(filename, str) or not 0 < len(filename) <= 255 or _LONE.search(filename):
        raise InvalidOption("A file name of 1 to 255 characters is needed.", field="filename")
    if not isinstance(size_bytes, int) or isinstance(size_bytes, bool) or size_bytes < 0:
        raise InvalidOption("The file's size in bytes is needed.", field="size_bytes")
    if size_bytes == 0:
        raise InvalidInput("The file is empty.")
    return filename, size_bytes


def _upload_answer(upload: pb.Upload) -> Response:
    body = {
        "upload_id": upload.upload_id,
        "filename": upload.filename,
        "received_bytes": upload.received_bytes,
        "size_bytes": upload.size_bytes,
        "complete": upload.complete,
    }
    headers = {
        "Upload-Offset": str(upload.received_bytes),
        "Upload-Length": str(upload.size_bytes),
        "Upload-Complete": "?1" if upload.complete else "?0",
        "Cache-Control": "no-store",
    }
    return JSONResponse(body, headers=headers)
