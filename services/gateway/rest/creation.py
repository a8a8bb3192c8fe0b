"""A video from a request: the file goes to the store as it arrives, and nothing of it stays where no job comes of it."""

import asyncio
import hashlib
import logging
import secrets
from collections.abc import AsyncGenerator
from dataclasses import replace

from starlette.requests import Request

from services.common.errors import AlreadyExists, InvalidInput, InvalidOption, NotFound, ServiceError, TooLarge, WrongState
from services.common.http.files import gathered
from services.common.http.headers import whole_header
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Job
from services.gateway.keys import Ref
from services.gateway.outages import log_failure
from services.gateway.rest.backend import Backend, mine
from services.gateway.rest.bodies import content_type, json_object, whole_body
from services.gateway.rest.decoder import FILES, decode_request
from services.gateway.rest.forms import FormReader, Part
from services.gateway.uploads import Finish

_log = logging.getLogger(__name__)
_FORM_PREFIX = "form-"
_FORM_OVERHEAD_BYTES = 8 << 20
_LONGEST_KEY = 255


class Creation:
    """Begins jobs."""

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def create(self, request: Request) -> Job:
        """A job by a form or a JSON object; with the header Idempotency-Key, the one that there is already.

        Raises:
            ServiceError: as :meth:`JobControl.create` and :meth:`Uploads.write` do.
        """
        job = mine(_job_id(request.headers.get("idempotency-key", "")))
        kind = content_type(request)
        if kind == "multipart/form-data":
            return await self._from_form(request, job)
        if kind != "application/json":
            raise InvalidInput("Send a form (multipart/form-data) with the file, or a JSON object (application/json).")
        return await self._backend.control.create(job, decode_request(await json_object(request)))

    async def forget_file(self, job: Job) -> None:
        """Remove what came with a form, unless another job needs it."""
        if job.request.upload_id.startswith(_FORM_PREFIX):
            await self._forget(Ref(job.owner, job.request.upload_id))

    async def _from_form(self, request: Request, ref: Ref) -> Job:
        most = self._backend.max_upload_bytes
        if whole_header(request, "content-length", 0) > most + _FORM_OVERHEAD_BYTES:
            raise TooLarge(f"An upload has at most {most} bytes here; cut the video, or compress it more.", field="file")
        upload, job = Ref(ref.owner, _FORM_PREFIX + secrets.token_hex(8)), None
        try:
            job = await self._begun(FormReader(request.headers["content-type"], whole_body(request)), ref, upload)
        finally:
            if job is None or job.request.upload_id != upload.id:
                await asyncio.shield(self._forget(upload))
        return job

    async def _begun(self, form: FormReader, ref: Ref, upload: Ref) -> Job:
        part = await form.next_file()
        if part is None:
            return await self._backend.control.create(ref, decode_request(form.fields))
        if part.name not in FILES:
            raise InvalidOption(f"The file's field is {part.name!r}; call it {' or '.join(FILES)}.", field=part.name)
        # What is known to be wrong is said before gigabytes have come.
        self._backend.control.check(decode_request(form.fields, upload_id=upload.id))
        known = await self._backend.book.seek(ref)
        sha256 = await (self._kept(form, part, upload) if known is None else _hashed(form))
        if await form.next_file() is not None:
            raise InvalidInput("The form has two files; send one, a zip for several pictures.", field="file")
        return await self._found_or_created(ref, decode_request(form.fields, upload_id=upload.id), sha256)

    async def _kept(self, form: FormReader, part: Part, upload: Ref) -> str:
        await self._backend.uploads.create(upload, part.filename or "video", 0)
        return (await self._backend.uploads.write(upload, 0, _messages(form))).sha256

    async def _found_or_created(self, ref: Ref, request: JobRequest, sha256: str) -> Job:
        known = await self._backend.book.seek(ref)
        if known is None:
            try:
                return await self._backend.control.create(ref, request)
            except AlreadyExists:
                known = await self._backend.book.seek(ref)
                if known is None:
                    raise
        if known.source_sha256 != sha256:
            raise AlreadyExists(f"The key {ref.id} belongs to a job of another file; choose another.", field="idempotency-key")
        return await self._backend.control.create(ref, replace(request, upload_id=known.request.upload_id))

    async def _forget(self, upload: Ref) -> None:
        try:
            await self._backend.uploads.delete(upload)
        except (NotFound, WrongState):
            return
        except ServiceError as error:
            log_failure(_log, "an upload can't be removed", error, upload_id=upload.id)


def _job_id(key: str) -> str:
    """The job id for a caller's key: the same for the same key, empty for none."""
    if len(key) > _LONGEST_KEY or not (key.isascii() and key.isprintable()):
        raise InvalidOption(f"The key has up to {_LONGEST_KEY} plain characters.", field="idempotency-key")
    return f"key-{hashlib.sha256(key.encode()).hexdigest()[:32]}" if key else ""


async def _messages(form: FormReader) -> AsyncGenerator[bytes | Finish, None]:
    async for piece in gathered(form.file_bytes()):
        yield piece
    yield Finish(sha256="")


async def _hashed(form: FormReader) -> str:
    digest = hashlib.sha256()
    async for piece in form.file_bytes():
        digest.update(piece)
    return digest.hexdigest()
