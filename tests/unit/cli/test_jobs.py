import json
from pathlib import Path

import pytest

from services.cli.arguments import build_parser
from services.common.errors import GpuOutOfMemory, JobCancelled, JobNotFound
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.unit.common.fake_gateway import FakeGateway, give_result


async def _run(*typed: str) -> int:
    arguments = build_parser().parse_args(["jobs", *typed])
    return int(await arguments.run(arguments))


async def test_list_goes_through_pages_up_to_its_limit(gateway: FakeGateway, server: str, capsys: pytest.CaptureFixture[str]):
    gateway.jobs = 7
    await _run("list", "--server", server, "--limit", "5", "--json")
    jobs = json.loads(capsys.readouterr().out)["jobs"]
    assert [job["job_id"] for job in jobs] == [f"job-{n}" for n in range(5)]


async def test_list_is_a_table(gateway: FakeGateway, server: str, capsys: pytest.CaptureFixture[str]):
    await _run("list", "--server", server)
    assert capsys.readouterr().out == "There are no jobs.\n"
    gateway.jobs = 1
    await _run("list", "--server", server)
    head, row = capsys.readouterr().out.splitlines()
    assert head.startswith("ID     STATE")
    assert row.startswith("job-0  Restoring")


async def test_show_says_what_is_known(gateway: FakeGateway, server: str, capsys: pytest.CaptureFixture[str]):
    gateway.job.filename = "film.mp4"
    gateway.job.plan.MergeFrom(pb.PlanSummary(source_width=320, source_height=180, width=640, height=360, model="nano"))
    gateway.job.notes.append("A worker was lost.")
    await _run("show", "job", "--server", server)
    said = capsys.readouterr().out
    assert "size      320x180 to 640x360" in said
    assert "note 1    A worker was lost." in said
    assert "failure" not in said


async def test_watch_ends_with_the_job_and_raises_why_it_failed(
    gateway: FakeGateway, server: str, capsys: pytest.CaptureFixture[str]
):
    gateway.changed.set()
    gateway.job.state = pb.JOB_STATE_FAILED
    gateway.job.failure.reason, gateway.job.failure.message = "GpuOutOfMemory", "It needs 9 GB."
    with pytest.raises(GpuOutOfMemory, match="It needs 9 GB"):
        await _run("watch", "job", "--server", server)
    assert capsys.readouterr().out == "Failed\n"


async def test_watch_of_a_cancelled_job_is_no_success(gateway: FakeGateway, server: str):
    gateway.job.state = pb.JOB_STATE_CANCELLED
    with pytest.raises(JobCancelled):
        await _run("watch", "job", "--server", server)


@pytest.mark.parametrize(("command", "call"), [("cancel", "CancelJob"), ("retry", "RetryJob"), ("delete", "DeleteJob")])
async def test_a_command_makes_its_call(
    gateway: FakeGateway, server: str, capsys: pytest.CaptureFixture[str], command: str, call: str
):
    assert await _run(command, "job", "--server", server) == 0
    assert [(name, request.job_id) for name, request in gateway.calls] == [(call, "job")]
    assert capsys.readouterr().out.startswith("job: ")


async def test_an_unknown_job_is_an_error(gateway: FakeGateway, server: str):
    gateway.errors = [JobNotFound("There is no job x.")]
    with pytest.raises(JobNotFound):
        await _run("show", "x", "--server", server)


async def test_download_writes_the_result_and_never_outside_the_directory(gateway: FakeGateway, server: str, tmp_path: Path):
    result = give_result(gateway, 300_000)
    gateway.job.state = pb.JOB_STATE_SUCCEEDED
    gateway.job.result.filename = "../../film.mp4"
    await _run("download", "job", "-o", str(tmp_path), "--server", server)
    assert (tmp_path / "film.mp4").read_bytes() == result
