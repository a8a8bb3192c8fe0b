"""Uploads in several requests: begun, continued from an offset, complete once every byte is there."""

from collections.abc import AsyncGenerator

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from services.common.errors import ChunkOutOfOrder, InvalidOption
from services.common.http.files import gathered
from services.common.http.headers import whole_header
from services.gateway.rest.answers import NO_STORE, error_answer
from services.gateway.rest.backend import Backend, mine
from services.gateway.rest.bodies import json_object
from services.gateway.rest.caller import note_made
from services.gateway.rest.decoder import text_of, whole
from services.gateway.rest.encoder import encode_upload
from services.gateway.uploads import Finish, Upload

_FIELDS = frozenset({"id", "filename", "bytes"})
_MOST = 2**63 - 1


class UploadRoutes:
    """Handlers of /v1/uploads."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def create(self, request: Request) -> Response:
        """POST /v1/uploads"""
        upload_id, filename, size_bytes = _begin_fields(await json_object(request))
        upload = await self._backend.uploads.create(mine(upload_id), filename, size_bytes)
        note_made(request, f"uploads/{upload.ref.id}")
        return _answer(upload, 201, {"Location": str(request.url.path).rstrip("/") + f"/{upload.ref.id}"})

    async def write(self, request: Request) -> Response:
        """PATCH /v1/uploads/{upload_id}"""
        ref, offset = mine(request.path_params["upload_id"]), whole_header(request, "upload-offset")
        known = await self._backend.uploads.get(ref)
        whole = request.headers.get("upload-complete") == "?1"
        try:
            return _answer(await self._backend.uploads.write(ref, offset, _messages(request, offset, known.size_bytes, whole)))
        except ChunkOutOfOrder as error:
            answer = error_answer(error)
            answer.headers.update(_headers(known))
            return answer

    async def get(self, request: Request) -> Response:
        """GET and HEAD /v1/uploads/{upload_id}"""
        return _answer(await self._backend.uploads.get(mine(request.path_params["upload_id"])))

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/uploads/{upload_id}"""
        await self._backend.uploads.delete(mine(request.path_params["upload_id"]))
        return Response(status_code=204, headers=NO_STORE)


async def _messages(request: Request, offset: int, size_bytes: int, whole: bool) -> AsyncGenerator[bytes | Finish, None]:
    try:
        async for piece in gathered(request.stream()):
            offset += len(piece)
            yield piece
    except ClientDisconnect:
        # What arrived is kept; the client asks how much that is, and goes on.
        return
    if whole or (size_bytes and offset == size_bytes):
        yield Finish(sha256="")


def _begin_fields(body: dict[str, object]) -> tuple[str, str, int]:
    if unknown := sorted(body.keys() - _FIELDS):
        raise InvalidOption(f"There is no field {unknown[0]!r}; the fields are {', '.join(sorted(_FIELDS))}.", field=unknown[0])
    upload_id, filename, size_bytes = body.get("id", ""), body.get("filename"), body.get("bytes", 0)
    if not filename:
        raise InvalidOption("A file name is needed; the result is named after it.", field="filename")
    return text_of("id", upload_id), text_of("filename", filename), whole(_MOST)("bytes", size_bytes)


def _headers(upload: Upload) -> dict[str, str]:
    return {
        **NO_STORE,
        "Upload-Offset": str(upload.received_bytes),
        "Upload-Length": str(upload.size_bytes),
        "Upload-Complete": "?1" if upload.complete else "?0",
    }


def _answer(upload: Upload, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(encode_upload(upload), status_code=status, headers=_headers(upload) | (headers or {}))
