import asyncio
import contextlib
import hashlib
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import InvalidInput, TooLarge, Unavailable
from services.common.metrics import GatewayMetrics
from services.gateway import keys
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Job
from services.gateway.sources.fetch import Fetcher, FetchLimits
from services.gateway.sources.web import WebSource
from services.gateway.store.local import LocalStore
from services.gateway.uploads import Upload, Uploads
from services.gateway.web.addresses import AddressGuard, parse_networks
from services.gateway.web.client import WebClient, tls_context
from services.gateway.web.urls import parse_url
from tests.unit.gateway.web.servers import Respond, Seen, WebServer, raw, says, web_server

FILM = os.urandom((3 << 20) + 17)
LIMITS = FetchLimits(retry_s=60.0, max_s=120.0, max_bytes=8 << 20)


class FileServer:
    """Serves ``content`` with ranges, as a good server does, but breaks off where it is told to."""

    def __init__(self, content: bytes, tag: str = '"1"') -> None:
        self.content = content
        self.tag = tag
        self.breaks: list[int] = []
        """After how many bytes, answer by answer."""
        self.ranges = True

    async def __call__(self, request: Seen, writer: asyncio.StreamWriter) -> None:
        start, status, headers = 0, "200 OK", []
        if self.ranges and "range" in request.headers and request.headers.get("if-range", self.tag) == self.tag:
            start = int(request.headers["range"].removeprefix("bytes=").removesuffix("-"))
            status = "206 Partial Content"
            headers = [f"Content-Range: bytes {start}-{len(self.content) - 1}/{len(self.content)}"]
            if start == len(self.content):
                status, headers = "416 Range Not Satisfiable", [f"Content-Range: bytes */{start}"]
        body = self.content[start:]
        tags = [f"ETag: {self.tag}"] if self.tag else []
        head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *tags, *headers, "", ""]
        writer.write("\r\n".join(head).encode() + (body[: self.breaks.pop(0)] if self.breaks else body))


class Place:
    """A store, and fetchers as in gateways over it."""

    def __init__(self, store: LocalStore) -> None:
        self.store = store
        self.metrics = GatewayMetrics(CollectorRegistry())
        request = JobRequest(upload_id="fetched")
        self.job = Job(owner="me", job_id="film", request=request, model="m", filename="a.mp4", source_sha256="", created_at=1.0)
        self.told: list[tuple[int, int]] = []

    async def fetch(self, port: int, limits: FetchLimits = LIMITS) -> Upload:
        uploads = Uploads(self.store, self.metrics, max_bytes=limits.max_bytes, users=lambda ref: ())
        web = WebClient(AddressGuard(parse_networks(("127.0.0.1",))), tls=tls_context(""), http=True, timeout_s=10)
        fetcher = Fetcher(uploads=uploads, store=self.store, limits=limits, metrics=self.metrics)
        url = parse_url(f"http://127.0.0.1:{port}/a.mp4", field="f", http=True)
        return await fetcher.fetch(self.job, WebSource(url, web, ()), lambda done, size: self.told.append((done, size)))

    async def stored(self) -> bytes:
        return b"".join([piece async for piece in self.store.read(keys.upload(self.job.upload, "data"))])


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with contextlib.closing(LocalStore(tmp_path / "store", min_free_bytes=0)) as store:
        yield Place(store)


@contextlib.asynccontextmanager
async def serving(respond: Respond) -> AsyncIterator[WebServer]:
    async with web_server(respond) as web:
        yield web


async def test_a_source_becomes_an_upload_with_its_hash(place: Place):
    async with serving(FileServer(FILM)) as web:
        upload = await place.fetch(web.port)
    assert (upload.complete, upload.size_bytes, upload.sha256) == (True, len(FILM), hashlib.sha256(FILM).hexdigest())
    assert await place.stored() == FILM
    assert place.told[-1] == (len(FILM), len(FILM))
    assert [done for done, _ in place.told] == sorted(done for done, _ in place.told)


async def test_it_is_not_fetched_twice(place: Place):
    async with serving(FileServer(FILM)) as web:
        await place.fetch(web.port)
        await place.fetch(web.port)
        assert len(web.seen) == 1


async def test_where_it_breaks_off_it_goes_on(place: Place):
    server = FileServer(FILM)
    server.breaks = [1 << 20, (1 << 20) + 5]
    async with serving(server) as web:
        upload = await place.fetch(web.port)
        begins = [seen.headers.get("range") for seen in web.seen]
    assert upload.sha256 == hashlib.sha256(FILM).hexdigest()
    # Whole pieces are kept, and so is what came of the last one.
    assert begins == [None, f"bytes={1 << 20}-", f"bytes={(2 << 20) + 5}-"]
    assert all(seen.headers.get("if-range") == '"1"' for seen in web.seen[1:])


async def test_another_gateway_goes_on_where_one_was_killed(place: Place):
    server = FileServer(FILM)
    server.breaks = [2 << 20]
    async with serving(server) as web:
        with pytest.raises(Unavailable, match=r"can't be fetched.*Retry the job later"):
            await place.fetch(web.port, FetchLimits(retry_s=0.1, max_s=60, max_bytes=8 << 20))
        upload = await place.fetch(web.port)
        assert web.seen[-1].headers["range"] == f"bytes={2 << 20}-"
    assert upload.sha256 == hashlib.sha256(FILM).hexdigest()


async def test_a_file_that_changed_meanwhile_is_fetched_from_its_beginning(place: Place):
    old, new = FileServer(FILM), FileServer(FILM[::-1], '"2"')
    old.breaks = [1 << 20]
    answers = [old, new]

    async def changing(request: Seen, writer: asyncio.StreamWriter) -> None:
        await (answers.pop(0) if len(answers) > 1 else answers[0])(request, writer)

    async with serving(changing) as web:
        await place.fetch(web.port)
    assert await place.stored() == FILM[::-1]


@pytest.mark.parametrize("spoil", ["no tag", "weak tag", "no ranges"])
async def test_what_can_not_be_gone_on_with_is_fetched_from_its_beginning(place: Place, spoil: str):
    server = FileServer(FILM, {"no tag": "", "weak tag": 'W/"1"'}.get(spoil, '"1"'))
    server.ranges, server.breaks = spoil != "no ranges", [1 << 20]
    async with serving(server) as web:
        await place.fetch(web.port)
        assert ("range" in web.seen[1].headers) == (spoil == "no ranges")
    assert await place.stored() == FILM


async def test_only_the_last_byte_was_kept_and_the_answer_was_lost(place: Place):
    server = FileServer(FILM)
    async with serving(server) as web:
        server.content = FILM + b"x"
        server.breaks = [len(FILM)]
        with pytest.raises(Unavailable):
            await place.fetch(web.port, FetchLimits(retry_s=0.1, max_s=60, max_bytes=8 << 20))
        server.content = FILM
        await place.fetch(web.port)
    assert await place.stored() == FILM


@pytest.mark.parametrize("declared", [True, False])
async def test_more_bytes_than_allowed_are_refused_before_or_while_they_come(place: Place, declared: bool):
    head = f"Content-Length: {9 << 20}" if declared else "Connection: close"
    async with serving(raw(f"HTTP/1.1 200 OK\r\n{head}\r\n\r\n".encode() + b"x" * (9 << 20))) as web:
        with pytest.raises(TooLarge):
            await place.fetch(web.port)
    kept = await place.store.appended(keys.upload(place.job.upload, "data"))
    assert kept == 0 if declared else kept <= LIMITS.max_bytes


@pytest.mark.parametrize(
    ("respond", "words"),
    [
        (says("404 Not Found"), "answers 404"),
        (says("403 Forbidden"), "answers 403"),
        (says("204 No Content"), "answers 204"),
        (says("200 OK", b"x", Content_Encoding="gzip"), "compressed"),
    ],
    ids=["missing", "forbidden", "nothing", "compressed"],
)
async def test_what_can_not_be_had_is_refused_at_once(place: Place, respond: Respond, words: str):
    async with serving(respond) as web:
        with pytest.raises(InvalidInput, match=words) as caught:
            await place.fetch(web.port)
        assert len(web.seen) == 1
    assert caught.value.field == "request.source.https_url"


@pytest.mark.parametrize("status", ["500 Oops", "503 Busy", "429 Too Many Requests", "408 Request Timeout"])
async def test_a_server_that_is_in_trouble_is_asked_again(place: Place, status: str):
    server, troubles = FileServer(FILM), [status]

    async def troubled(request: Seen, writer: asyncio.StreamWriter) -> None:
        await (says(troubles.pop()) if troubles else server)(request, writer)

    async with serving(troubled) as web:
        assert (await place.fetch(web.port)).complete
        assert len(web.seen) == 2


async def test_another_part_than_was_asked_for_is_not_taken(place: Place):
    server, lies = FileServer(FILM), ["bytes 5-9/100", "nonsense"]
    server.breaks = [1 << 20]

    async def lying(request: Seen, writer: asyncio.StreamWriter) -> None:
        lie = "range" in request.headers and lies
        await (says("206 Partial Content", b"x", Content_Range=lies.pop(), ETag='"1"') if lie else server)(request, writer)

    async with serving(lying) as web:
        await place.fetch(web.port)
        assert [bool(seen.headers.get("range")) for seen in web.seen] == [False, True, False]
    assert await place.stored() == FILM


async def test_a_server_that_takes_no_notice_of_the_condition_gives_no_mixture(place: Place):
    old, new = FileServer(FILM), FileServer(FILM[::-1], '"2"')
    old.breaks = [1 << 20]
    answers = [old, new]

    async def changing(request: Seen, writer: asyncio.StreamWriter) -> None:
        request.headers.pop("if-range", None)
        await (answers.pop(0) if len(answers) > 1 else answers[0])(request, writer)

    async with serving(changing) as web:
        await place.fetch(web.port)
    assert await place.stored() == FILM[::-1]


async def test_fetching_has_an_end(place: Place):
    never = asyncio.Event()

    async def trickle(request: Seen, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        await never.wait()

    async with serving(trickle) as web:
        with pytest.raises(Unavailable, match=r"longer than 0 s; upload it instead"):
            await place.fetch(web.port, FetchLimits(retry_s=60, max_s=0.3, max_bytes=8 << 20))
        never.set()
