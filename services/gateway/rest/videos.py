"""Videos: created, listed, looked at, cancelled, tried again, deleted; and their files."""

from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from services.common.errors import InvalidOption
from services.common.http.files import FileInfo, file_answer
from services.gateway.jobs import Job, State
from services.gateway.memory import listed_by
from services.gateway.rest.answers import NO_STORE, error_answer
from services.gateway.rest.backend import Backend, mine
from services.gateway.rest.bodies import choice_query, whole_query
from services.gateway.rest.caller import note_made
from services.gateway.rest.creation import Creation
from services.gateway.rest.encoder import STATUSES, encode_video

_PAGE, _LONGEST_PAGE = 20, 100
_MAX_SIDE, _THUMBNAIL_SIDE = 4096, 512


class Videos:
    """Handlers of /v1/videos."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._creation = Creation(backend)

    async def create(self, request: Request) -> Response:
        """POST /v1/videos"""
        job = await self._creation.create(request)
        note_made(request, f"jobs/{job.job_id}")
        return self._answer(job)

    async def listed(self, request: Request) -> Response:
        """GET /v1/videos"""
        limit = whole_query(request, "limit", least=1, most=_LONGEST_PAGE, default=_PAGE)
        order = choice_query(request, "order", ("desc", "asc"))
        states = _states(request.query_params.get("status"))
        after = request.query_params.get("after")
        mark = listed_by(await self._backend.book.look(mine(after))) if after else None
        jobs = await self._backend.book.page(mine("").owner, states, after=mark, size=limit + 1, oldest_first=order == "asc")
        page = [encode_video(job, self._backend.book.progress(job.ref)) for job in jobs[:limit]]
        body = {
            "object": "list", "data": page, "first_id": page[0]["id"] if page else None,
            "last_id": page[-1]["id"] if page else None, "has_more": len(jobs) > limit,
        }  # fmt: skip
        return JSONResponse(body, headers=NO_STORE)

    async def get(self, request: Request) -> Response:
        """GET /v1/videos/{video_id}"""
        return self._answer(await self._job(request))

    async def cancel(self, request: Request) -> Response:
        """POST /v1/videos/{video_id}/cancel"""
        return self._answer(await self._backend.control.cancel((await self._job(request)).ref))

    async def retry(self, request: Request) -> Response:
        """POST /v1/videos/{video_id}/retry"""
        return self._answer(await self._backend.control.retry((await self._job(request)).ref))

    async def delete(self, request: Request) -> Response:
        """DELETE /v1/videos/{video_id}"""
        job = await self._job(request)
        await self._backend.control.delete(job.ref)
        await self._creation.forget_file(job)
        return JSONResponse({"id": job.job_id, "object": "video.deleted", "deleted": True}, headers=NO_STORE)

    async def content(self, request: Request) -> Response:
        """GET /v1/videos/{video_id}/content"""
        variant, job = choice_query(request, "variant", ("video", "source", "thumbnail")), await self._job(request)
        if variant == "thumbnail":
            return await self._thumbnail(request, job)
        if link := await self._link(request, job, of_result=variant == "video"):
            return Response(status_code=307, headers=NO_STORE | {"Location": link})
        read = self._backend.results.result if variant == "video" else self._backend.results.source

        async def part(offset: int, length: int) -> tuple[FileInfo, AsyncGenerator[bytes, None]]:
            found = await read(job.ref, offset, length)
            return found, found.pieces

        # The results count what they give.
        return await file_answer(request, part, attachment=True, on_bytes=lambda _: None, error_answer=error_answer)

    async def _link(self, request: Request, job: Job, *, of_result: bool) -> str | None:
        # Links are for GET alone: their signature says so.
        if request.method != "GET" or not self._backend.link_s:
            return None
        return await self._backend.results.link(job.ref, of_result=of_result, seconds=self._backend.link_s)

    async def _thumbnail(self, request: Request, job: Job) -> Response:
        frame = whole_query(request, "frame", least=0, most=2**63 - 1, default=0)
        side = whole_query(request, "max_side", least=1, most=_MAX_SIDE, default=_THUMBNAIL_SIDE)
        picture = await self._backend.results.picture(job.ref, of_result=True, frame=frame, max_side=side)
        return Response(picture.data, media_type="image/png", headers={"Cache-Control": "private, max-age=300"})

    async def _job(self, request: Request) -> Job:
        return await self._backend.book.look(mine(request.path_params["video_id"]))

    def _answer(self, job: Job) -> Response:
        return JSONResponse(encode_video(job, self._backend.book.progress(job.ref)), headers=NO_STORE)


def _states(status: str | None) -> list[State]:
    if status is not None and status not in STATUSES.values():
        raise InvalidOption(f"status must be one of {', '.join(dict.fromkeys(STATUSES.values()))}.", field="status")
    return [state for state, name in STATUSES.items() if name == status]
