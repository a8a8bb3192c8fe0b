"""``seedvr2 restore DIR`` and ``seedvr2 plan`` as processes against a real gateway."""

import asyncio
import json
import shutil
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from services.common.client import GatewayClient
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.clips import make
from tests.integration.gateway_calls import stamps
from tests.integration.processes import Process, echo_worker, gateway, running

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def service(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Process]:
    directory = tmp_path_factory.mktemp("service")
    worker = echo_worker(directory / "worker")
    async with running(worker):
        process = gateway(directory / "gateway", worker)
        async with running(process):
            yield process


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("clips")
    for name in ("a.mp4", "b.mkv"):
        make.video(directory / name, frames=6)
    (directory / "broken.mp4").write_bytes(b"no video")
    (directory / "notes.txt").write_text("not a video")
    return directory


@pytest.fixture
def folder(clips: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(clips, tmp_path / "in"))


async def _seedvr2(*typed: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cli", *typed, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def _restore(service: Process, *typed: str) -> tuple[int, list[dict[str, Any]], str]:
    """Exit code, a record a file and the summary, and what was said beside."""
    process = await _seedvr2("restore", *typed, "--server", service.address, "--json")
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode is not None
    return process.returncode, [json.loads(line) for line in out.splitlines()], err.decode()


def _states(records: list[dict[str, Any]]) -> dict[str, str]:
    return {Path(record["file"]).name: record["state"] for record in records[:-1]}


async def test_a_folder_is_restored_file_by_file_and_what_is_done_is_skipped(service: Process, folder: Path, tmp_path: Path):
    output = tmp_path / "out"
    code, records, said = await _restore(service, str(folder), "-o", str(output))
    assert code == 1
    assert _states(records) == {"a.mp4": "restored", "b.mkv": "restored", "broken.mp4": "failed"}
    assert records[-1] == {"files": 3, "restored": 2, "skipped": 0, "failed": 1}
    assert "neither videos nor pictures: 1." in said
    made = {path.name for path in output.iterdir()}
    assert made == {"a.mp4", "b.mp4", ".seedvr2.json"}
    assert len(stamps(output / "a.mp4")) == 6
    (folder / "broken.mp4").unlink()
    (output / "b.mp4").unlink()
    code, records, _ = await _restore(service, str(folder), "-o", str(output))
    assert code == 0
    assert _states(records) == {"a.mp4": "skipped", "b.mkv": "restored"}
    # Other options make other results.
    code, records, _ = await _restore(service, str(folder), "-o", str(output), "--scale", "2")
    assert _states(records) == {"a.mp4": "restored", "b.mkv": "restored"}


async def test_a_file_that_somebody_else_put_there_stays(service: Process, folder: Path, tmp_path: Path):
    output = tmp_path / "out"
    output.mkdir()
    (output / "a.mp4").write_bytes(b"mine")
    code, records, _ = await _restore(service, str(folder), "-o", str(output), "--time", "0:0.1")
    assert (code, _states(records)["a.mp4"], (output / "a.mp4").read_bytes()) == (1, "failed", b"mine")
    code, records, _ = await _restore(service, str(folder), "-o", str(output), "--time", "0:0.1", "--overwrite")
    assert _states(records)["a.mp4"] == "restored"
    assert len(stamps(output / "a.mp4")) == 3


async def test_after_an_interruption_the_same_command_goes_on_with_the_same_jobs(folder: Path, tmp_path: Path):
    (folder / "broken.mp4").unlink()
    hold = tmp_path / "hold"
    hold.touch()
    worker = echo_worker(tmp_path / "worker", hold_file=hold)
    async with running(worker):
        service = gateway(tmp_path / "gateway", worker, segment_frames=2)
        async with running(service), GatewayClient(service.address) as client:
            typed = (str(folder), "-o", str(tmp_path / "out"))
            process = await _seedvr2("restore", *typed, "--server", service.address)
            while not any(job.state == pb.JOB_STATE_RESTORING for job in (await client.list_jobs()).jobs):
                await asyncio.sleep(0.05)
            process.send_signal(signal.SIGINT)
            _, err = await asyncio.wait_for(process.communicate(), 20)
            assert process.returncode == 130
            assert "the same command goes on from here" in err.decode()
            begun = {job.job_id for job in (await client.list_jobs()).jobs}
            hold.unlink()
            code, records, _ = await _restore(service, *typed)
            jobs = {job.job_id for job in (await client.list_jobs()).jobs}
            assert (code, len(jobs)) == (0, 2)
            assert begun <= jobs == {record["job_id"] for record in records[:-1]}


async def test_a_job_that_failed_is_begun_again_by_the_same_command(folder: Path, tmp_path: Path):
    for name in ("broken.mp4", "b.mkv"):
        (folder / name).unlink()
    worker = echo_worker(tmp_path / "worker", fail_with="InvalidVideo", fail_times=1)
    async with running(worker):
        service = gateway(tmp_path / "gateway", worker)
        async with running(service), GatewayClient(service.address) as client:
            typed = (str(folder), "-o", str(tmp_path / "out"))
            assert _states((await _restore(service, *typed))[1]) == {"a.mp4": "failed"}
            assert _states((await _restore(service, *typed))[1]) == {"a.mp4": "restored"}
            assert len((await client.list_jobs()).jobs) == 1


async def test_plan_says_what_restoring_would_do_and_leaves_nothing(service: Process, folder: Path):
    uploads = service._directory / "store/owners/local/uploads"
    before = set(uploads.iterdir()) if uploads.exists() else set()
    files = str(folder / "a.mp4"), str(folder / "b.mkv")
    process = await _seedvr2("plan", *files, "--scale", "2", "--server", service.address)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert process.returncode == 0, err
    first, second = out.decode().splitlines()
    assert f"{files[0]}: 64x48 to 128x96, 6 frames (0:00) in 1 span; echo, mp4" in first
    assert second.startswith(files[1])
    assert {path for path in uploads.iterdir() if any(path.iterdir())} <= before
