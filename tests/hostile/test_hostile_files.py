"""No file kills a service, keeps it for ever, or leads it to another file."""

import asyncio
import contextlib
import itertools
import json
import os
import sys
from pathlib import Path

import pytest

from services.common.client import GatewayClient
from services.common.errors import InvalidVideo
from services.common.pb.seedvr2.v1 import gateway_pb2 as pb
from tests.clips import make
from tests.hostile.mutate import damaged
from tests.hostile.opens import Opens
from tests.integration.gateway_calls import finished, request, until
from tests.integration.processes import echo_worker, gateway, running

pytestmark = [pytest.mark.integration, pytest.mark.timeout(900)]

COUNT = int(os.environ.get("SEEDVR2_TEST_HOSTILE_FILES", "1000"))
"""Damaged files; more find more."""


async def test_damaged_and_hostile_files_end_in_an_answer_and_touch_nothing(tmp_path: Path):
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.hostile", "--directory", str(tmp_path), "--count", str(COUNT),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    said, log = await process.communicate()
    assert process.returncode == 0, log.decode()[-3000:]
    found = json.loads(said)
    assert found["wrong"] == []
    assert found["left"] == ["canary.mp4"]
    assert found["files"] >= COUNT
    # Some damage is survived and some is not; else it would be no damage, or nothing would work.
    steps = ("probe ok", "probe error: InvalidVideo", "index ok", "restore ok")
    assert min(found["outcomes"][step] for step in steps) > COUNT / 20


async def test_a_gateway_that_was_given_damaged_files_goes_on(tmp_path: Path):
    clips = {"a.mp4": make.video(tmp_path / "a.mp4").read_bytes(), "b.mkv": make.video(tmp_path / "b.mkv").read_bytes()}
    worker = echo_worker(tmp_path / "worker")
    async with running(worker):
        process = gateway(tmp_path / "gateway", worker)
        async with running(process), GatewayClient(process.address) as client:
            for number, (_, data) in enumerate(itertools.islice(damaged(clips, 3), 24)):
                (tmp_path / "damaged").write_bytes(data)
                upload = await client.upload_file(tmp_path / "damaged")
                with contextlib.suppress(InvalidVideo):
                    job = await client.create_job(request(upload), f"damaged-{number}")
                    ended = await until(client, job.job_id, lambda job: False)
                    assert ended.state in (pb.JOB_STATE_SUCCEEDED, pb.JOB_STATE_FAILED)
            good = await client.create_job(request(await client.upload_file(tmp_path / "a.mp4")), "good")
            assert (await finished(client, good.job_id)).result.frames == 24


def test_a_file_that_is_opened_is_noticed(tmp_path: Path):
    (tmp_path / "a").touch()
    opens = Opens(tmp_path / "a")
    assert not opens.seen()
    (tmp_path / "a").read_bytes()
    assert opens.seen()
    assert not opens.seen()


def test_the_same_seed_damages_files_in_the_same_way():
    clips = {"a": bytes(range(256)) * 40, "b": b"moovtrakmdia" * 500}
    first, again, other = (list(itertools.islice(damaged(clips, seed), 40)) for seed in (1, 1, 2))
    assert first == again != other
    assert sum(data != clips[name.split("+")[0]] for name, data in first) > 35
