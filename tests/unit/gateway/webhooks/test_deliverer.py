import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import JobCancelled
from services.common.metrics import GatewayMetrics
from services.common.watched import Watched
from services.gateway import jobs, keys
from services.gateway.job_request import JobRequest
from services.gateway.jobs import Job
from services.gateway.keys import Ref
from services.gateway.store.local import LocalStore
from services.gateway.web.addresses import AddressGuard, parse_networks
from services.gateway.web.client import WebClient, tls_context
from services.gateway.webhooks.deliverer import Webhooks, WebhookSettings
from services.gateway.webhooks.signing import parse_secrets, signed_headers
from tests.unit.gateway.web.servers import Respond, Seen, WebServer, says, web_server

REF = Ref("me", "film")
SETTINGS = WebhookSettings(give_up_s=3600.0, first_s=5.0, limit_s=5.0, poll_s=0.01)


class World:
    """Jobs, a clock, a store, and as many gateways as a test wants."""

    def __init__(self, directory: Path, url: str) -> None:
        self.now = 1_000_000.0
        self.store = LocalStore(directory / "store", min_free_bytes=0)
        self.secret = directory / "secret"
        self.secret.write_bytes(b"whsec_" + base64.b64encode(b"s" * 32))
        self.metrics = GatewayMetrics(CollectorRegistry())
        request = JobRequest(upload_id="u", webhook_url=url)
        self.job: Job | None = Job(
            owner=REF.owner, job_id=REF.id, request=request, model="nano", filename="a", source_sha256="", created_at=1.0
        )

    def gateway(self, *, guarded: bool = False, settings: WebhookSettings = SETTINGS) -> Webhooks:
        guard = AddressGuard(() if guarded else parse_networks(("127.0.0.1",)))
        return Webhooks(
            store=self.store, look=self._look, note=self._note, web=WebClient(guard, tls=tls_context(""), http=True, timeout_s=5),
            secrets=Watched([self.secret], parse_secrets), settings=settings, metrics=self.metrics, clock=lambda: self.now,
        )  # fmt: skip

    def end(self) -> None:
        assert self.job is not None
        self.job = jobs.failed(self.job, JobCancelled("It is over."), self.now)

    def retry(self) -> None:
        assert self.job is not None
        self.job = jobs.retried(self.job, self.now)

    async def pending(self) -> bool:
        return bool(await self.store.keys(keys.WEBHOOKS))

    def counted(self, outcome: str) -> float:
        return float(self.metrics.webhooks.labels(outcome)._value.get())

    async def _look(self, ref: Ref) -> Job | None:
        return self.job if ref == REF else None

    async def _note(self, ref: Ref, change: jobs.Change) -> Job:
        assert self.job is not None
        self.job = change(self.job)
        return self.job


async def _sweep(gateway: Webhooks) -> None:
    await asyncio.gather(*await gateway.sweep())


def failing(times: int, status: str = "503 Service Unavailable", **headers: str) -> Respond:
    """Refuses some requests, then takes them."""
    left = [times]

    async def respond(request: Seen, writer: asyncio.StreamWriter) -> None:
        left[0] -= 1
        await (says("204 No Content") if left[0] < 0 else says(status, **headers))(request, writer)

    return respond


@pytest.fixture
async def receiver() -> AsyncIterator[WebServer]:
    async with web_server(says("204 No Content")) as web:
        yield web


@pytest.fixture
async def world(tmp_path: Path, receiver: WebServer) -> AsyncIterator[World]:
    world = World(tmp_path, f"http://127.0.0.1:{receiver.port}/hook?for=me")
    with contextlib.closing(world.store):
        yield world


async def test_the_end_of_a_job_is_told_once_and_signed(world: World, receiver: WebServer):
    gateway = world.gateway()
    await gateway.expect(REF)
    await _sweep(gateway)
    assert not receiver.seen
    world.end()
    await _sweep(gateway)
    await _sweep(gateway)
    (seen,) = receiver.seen
    assert seen.line == "POST /hook?for=me HTTP/1.1"
    assert seen.headers["content-type"] == "application/json"
    assert json.loads(seen.body)["type"] == "job.failed"
    sent = {name: seen.headers[name] for name in ("webhook-id", "webhook-timestamp", "webhook-signature")}
    key = parse_secrets(world.secret.read_bytes())
    assert sent == dict(signed_headers(sent["webhook-id"], int(sent["webhook-timestamp"]), seen.body, key))
    assert not await world.pending()
    assert world.counted("delivered") == 1


async def test_a_receiver_that_fails_is_tried_again_later_with_the_same_id_and_body(world: World, receiver: WebServer):
    receiver.respond = failing(2)
    gateway = world.gateway()
    await gateway.expect(REF)
    world.end()
    for _ in range(2):
        await _sweep(gateway)
        await _sweep(gateway)  # not yet
        world.now += 60
    await _sweep(gateway)
    assert len(receiver.seen) == 3
    assert len({(seen.headers["webhook-id"], seen.body) for seen in receiver.seen}) == 1
    assert len({seen.headers["webhook-timestamp"] for seen in receiver.seen}) == 3
    assert (world.counted("failed"), world.counted("delivered")) == (2, 1)


async def test_another_gateway_goes_on_after_the_one_that_tried_is_gone(world: World, receiver: WebServer):
    arrived, never = asyncio.Event(), asyncio.Event()

    async def hang(request: Seen, writer: asyncio.StreamWriter) -> None:
        arrived.set()
        await never.wait()

    receiver.respond = hang
    first, second = world.gateway(), world.gateway()
    await first.expect(REF)
    world.end()
    await first.sweep()
    await arrived.wait()
    # While the first one may be trying, the second one leaves it alone.
    await _sweep(second)
    await first.close()
    never.set()
    receiver.respond = says("200 OK")
    await _sweep(second)
    assert len(receiver.seen) == 1
    world.now += SETTINGS.limit_s
    await _sweep(second)
    assert len(receiver.seen) == 2
    assert not await world.pending()


async def test_two_gateways_at_the_same_time_tell_it_once(world: World, receiver: WebServer):
    gateways = [world.gateway() for _ in range(4)]
    await gateways[0].expect(REF)
    world.end()
    await asyncio.gather(*(_sweep(gateway) for gateway in gateways))
    assert len(receiver.seen) == 1


async def test_after_hours_it_is_given_up_with_a_note_on_the_job(world: World, receiver: WebServer):
    receiver.respond = failing(1000)
    gateway = world.gateway()
    await gateway.expect(REF)
    world.end()
    for _ in range(20):
        await _sweep(gateway)
        world.now += 600
    assert world.job is not None
    assert world.job.notes == ("Its webhook could not be delivered: 127.0.0.1 answers 503.",)
    assert 4 < len(receiver.seen) < 12
    assert world.counted("given_up") == 1
    assert not await world.pending()


@pytest.mark.parametrize(("status", "words"), [("410 Gone", "wants no more webhooks")])
async def test_a_receiver_that_wants_no_more_is_left_alone_at_once(world: World, receiver: WebServer, status: str, words: str):
    receiver.respond = says(status)
    gateway = world.gateway()
    await gateway.expect(REF)
    world.end()
    await _sweep(gateway)
    assert world.job is not None
    assert words in world.job.notes[0]
    assert not await world.pending()


async def test_an_address_of_the_inside_is_not_told_anything(world: World, receiver: WebServer):
    gateway = world.gateway(guarded=True)
    await gateway.expect(REF)
    world.end()
    await _sweep(gateway)
    assert not receiver.seen
    assert world.job is not None
    assert "no public address" in world.job.notes[0]


async def test_a_redirect_is_not_followed(world: World, receiver: WebServer):
    receiver.respond = says("302 Found", Location="http://127.0.0.1/elsewhere")
    gateway = world.gateway()
    await gateway.expect(REF)
    world.end()
    await _sweep(gateway)
    assert len(receiver.seen) == 1
    assert world.counted("failed") == 1


async def test_a_receiver_that_says_nothing_is_given_up_in_time_and_tried_again(world: World, receiver: WebServer):
    never = asyncio.Event()

    async def hang(request: Seen, writer: asyncio.StreamWriter) -> None:
        await never.wait()

    receiver.respond = hang
    gateway = world.gateway(settings=replace(SETTINGS, limit_s=0.1))
    await gateway.expect(REF)
    world.end()
    await _sweep(gateway)
    never.set()
    assert world.counted("failed") == 1
    assert await world.pending()


async def test_a_job_that_is_retried_and_ends_again_is_told_again(world: World, receiver: WebServer):
    gateway = world.gateway()
    await gateway.expect(REF)
    world.end()
    await _sweep(gateway)
    world.retry()
    await gateway.expect(REF)
    await _sweep(gateway)
    world.now += 10
    world.end()
    await _sweep(gateway)
    assert len({seen.headers["webhook-id"] for seen in receiver.seen}) == len(receiver.seen) == 2


async def test_a_job_that_is_retried_while_its_end_is_told_is_told_again_when_it_ends(world: World, receiver: WebServer):
    async def retried_meanwhile(request: Seen, writer: asyncio.StreamWriter) -> None:
        world.retry()
        await says("200 OK")(request, writer)

    receiver.respond = retried_meanwhile
    gateway = world.gateway()
    await gateway.expect(REF)
    world.end()
    await _sweep(gateway)
    receiver.respond = says("200 OK")
    world.now += 10
    world.end()
    await _sweep(gateway)
    assert len(receiver.seen) == 2


async def test_a_mark_without_a_job_goes_after_a_while(world: World):
    gateway = world.gateway()
    await gateway.expect(REF)
    world.job = None
    await _sweep(gateway)
    assert await world.pending()
    world.now += 3600
    await _sweep(gateway)
    assert not await world.pending()


async def test_a_new_secret_signs_from_then_on(world: World, receiver: WebServer):
    gateway = world.gateway()
    await gateway.expect(REF)
    new = world.secret.with_name("new")
    new.write_bytes(b"whsec_" + base64.b64encode(b"n" * 40))
    new.replace(world.secret)
    world.end()
    await _sweep(gateway)
    (seen,) = receiver.seen
    sent = dict(signed_headers(seen.headers["webhook-id"], int(seen.headers["webhook-timestamp"]), seen.body, [b"n" * 40]))
    assert seen.headers["webhook-signature"] == sent["webhook-signature"]
