"""What is one owner's, nobody else sees, lists, changes or gets: every call of the contract, over a real socket."""

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import pytest

from services.common.client import GatewayClient
from services.common.errors import JobNotFound, PermissionDenied, Unauthenticated
from services.common.login import Credentials
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from services.common.pb.seedvr2.v1 import gateway_pb2_grpc
from services.common.rpc.server import open_channel
from services.gateway.identity.caller import Role, owner_of
from services.gateway.identity.tokens import new_token
from tests.clips import make
from tests.integration.gateway_calls import request, until
from tests.integration.identities import Identity, identity, token_file
from tests.integration.processes import Process, echo_worker, gateway, running

pytestmark = pytest.mark.integration

METHODS = list(pb.DESCRIPTOR.services_by_name["Gateway"].methods)
IDS = [method.name for method in METHODS]
ALICE, BOB, ROOT, PAGE = identity("alice"), identity("bob"), identity("root", Role.ADMIN), identity("page", Role.DELEGATE)
OF_NOBODY = {"ListModels", "GetClusterStatus", "GetCaller", "GetUsage"}
"""Calls whose answers have nothing of any other owner."""


class Service(NamedTuple):
    """A gateway with a job of Alice."""

    process: Process
    job_id: str
    upload_id: str
    audit: Path


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("isolation")


@pytest.fixture
async def service(directory: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Service]:
    where = directory / str(len(list(directory.iterdir())))
    audit = where / "audit.jsonl"
    monkeypatch.setenv("SEEDVR2_IDENTITY_TOKEN_FILE", str(token_file(where / "tokens", ALICE, BOB, ROOT, PAGE)))
    monkeypatch.setenv("SEEDVR2_IDENTITY_AUDIT_FILE", str(audit))
    worker = echo_worker(where / "worker")
    async with running(worker):
        process = gateway(where / "gateway", worker)
        async with running(process), ALICE.client(process.address) as client:
            clip = where / "clip.mp4"
            make.video(clip, frames=16)
            upload = await client.upload_file(clip, upload_id="the-upload")
            await client.create_job(request(upload), job_id="the-job")
            job = await until(client, "the-job", lambda job: False)
            assert job.state == pb.JOB_STATE_SUCCEEDED
            yield Service(process, job.job_id, upload.upload_id, audit)


def _message(method: Any, service: Service) -> Any:
    """A request that names what is Alice's wherever it can name something."""
    message = getattr(pb, method.input_type.name)()
    names = {field.name for field in message.DESCRIPTOR.fields}
    if method.name == "WriteUpload":
        message.start.upload_id = service.upload_id
    if "request" in names:
        message.request.MergeFrom(request(service.upload_id))
    if "job_id" in names:
        message.job_id = service.job_id
    if "upload_id" in names:
        message.upload_id = service.upload_id
    if method.name == "GetFrame":
        message.of = pb.FRAME_OF_RESULT
    return message


async def _answer(method: Any, service: Service, who: Identity | None) -> Any:
    """The first answer to a call. Raises grpc.aio.AioRpcError."""
    metadata = [("authorization", f"Bearer {who.token}")] if who else []
    async with open_channel(service.process.address) as channel:
        call = getattr(gateway_pb2_grpc.GatewayStub(channel), method.name)
        message = _message(method, service)
        answer = call(iter([message]) if method.client_streaming else message, metadata=metadata, timeout=20)
        return await anext(aiter(answer)) if method.server_streaming else await answer


async def test_nobody_gets_anything_without_a_token_that_counts(service: Service):
    for method in METHODS:
        for who in (None, identity("alice")):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await _answer(method, service, who)
            limited = who is not None and caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            assert limited or caught.value.code() is grpc.StatusCode.UNAUTHENTICATED, method.name


async def test_every_call_that_names_what_is_somebody_elses_finds_nothing(service: Service):
    for method in METHODS:
        if method.name in OF_NOBODY | {"ListJobs", "CreateUpload"}:
            continue
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await _answer(method, service, BOB)
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND, method.name
    async with ALICE.client(service.process.address) as client:
        assert (await client.get_job(service.job_id)).state == pb.JOB_STATE_SUCCEEDED
        assert (await client.get_upload(service.upload_id)).complete


async def test_lists_and_answers_of_nobody_have_nothing_of_somebody_else(service: Service):
    for method in METHODS:
        if method.name in OF_NOBODY | {"ListJobs"}:
            told = str(await _answer(method, service, BOB))
            assert service.job_id not in told
            assert "alice" not in told
            assert owner_of("alice") not in told


async def test_the_same_ids_are_other_things_for_another_owner(service: Service):
    async with BOB.client(service.process.address) as bob, ALICE.client(service.process.address) as alice:
        upload = await bob.create_upload("mine.mp4", 5, service.upload_id)
        assert upload.received_bytes == 0
        await bob.delete_upload(service.upload_id)
        assert (await alice.get_upload(service.upload_id)).complete


async def test_the_owner_has_what_others_do_not(service: Service):
    for method in METHODS:
        # The job has ended, and these would take it, or its upload, away.
        if method.name not in {"CancelJob", "RetryJob", "DeleteJob", "DeleteUpload", "WriteUpload", "CreateUpload"}:
            await _answer(method, service, ALICE)


async def test_an_administrator_sees_all_and_acts_for_anybody_and_nobody_else_does(service: Service):
    address = service.process.address
    async with ROOT.client(address) as root, BOB.client(address) as bob, ALICE.client(address) as alice:
        (job,) = (await root.list_jobs(all_owners=True)).jobs
        assert (job.job_id, job.subject, job.owner) == (service.job_id, "alice", owner_of("alice"))
        assert not (await root.list_jobs()).jobs
        with pytest.raises(JobNotFound):
            await root.get_job(service.job_id)
        for client in (bob, alice):
            with pytest.raises(PermissionDenied, match="Only administrators"):
                await client.list_jobs(all_owners=True)
        assert (await alice.get_job(service.job_id)).owner == ""
    async with ROOT.client(address, "alice") as acting, BOB.client(address, "alice") as pretending:
        assert (await acting.get_job(service.job_id)).job_id == service.job_id
        with pytest.raises(PermissionDenied, match="acts for nobody but its own subject"):
            await pretending.get_job(service.job_id)
        await acting.delete_job(service.job_id)
    lines = [json.loads(line) for line in service.audit.read_text().splitlines()]
    assert lines[-1].items() >= {"call": "DeleteJob", "subject": "alice", "by_subject": "root", "outcome": "OK"}.items()
    assert {"call": "GetJob", "by_subject": "root"}.items() <= lines[-3].items()


async def test_a_delegate_acts_for_whom_it_names(service: Service):
    async with PAGE.client(service.process.address, "alice") as page:
        assert (await page.get_job(service.job_id)).job_id == service.job_id
        told = await page.caller()
        assert (told.subject, told.role, told.by_subject) == ("alice", "user", "page")
    async with PAGE.client(service.process.address) as page:
        with pytest.raises(PermissionDenied, match="name them"):
            await page.list_jobs()


async def test_a_token_that_is_taken_back_ends_at_once(service: Service):
    path = service.audit.with_name("tokens")
    async with BOB.client(service.process.address) as bob:
        assert (await bob.caller()).subject == "bob"
        token_file(path, ALICE, ROOT)
        with pytest.raises(Unauthenticated, match="not known here"):
            await bob.caller()


async def test_no_log_has_a_token(service: Service):
    wrong = new_token()
    login = lambda: Credentials(token=wrong, subject="alice")  # noqa: E731
    async with GatewayClient(service.process.address, login=login) as client:
        with pytest.raises(Unauthenticated):
            await client.caller()
    await asyncio.sleep(0)
    audit = service.audit.read_text()
    assert '"outcome": "UNAUTHENTICATED"' in audit
    for token in (wrong, *(who.token for who in (ALICE, BOB, ROOT, PAGE))):
        assert token not in audit
        assert token not in service.process.log
        assert token[4:20] not in service.process.log
