import asyncio
import json
import sys

import pytest

from services.cli.command import run
from services.common.errors import TokenMissing
from tests.unit.common.fake_gateway import FakeGateway


async def _seedvr2(*typed: str) -> tuple[int | None, str, str]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.cli", *typed, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode, out.decode(), err.decode()


def test_wrong_usage_is_a_sentence_and_exit_code_2(capsys: pytest.CaptureFixture[str]):
    assert run(["restore", "--scale", "x"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("seedvr2 restore: argument --scale: 'x' is not a number")
    assert said.err.count("\n") == 1


def test_wrong_usage_with_json_is_an_object(capsys: pytest.CaptureFixture[str]):
    assert run(["restore", "none.mp4", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["error"] == {
        "code": "UsageError",
        "message": "seedvr2 restore: none.mp4 is neither a file, nor a directory or pattern of pictures.",
    }


def test_a_gateway_that_is_not_there_is_a_sentence_and_exit_code_1(unused_tcp_port: int, capsys: pytest.CaptureFixture[str]):
    assert run(["models", "list", "--server", f"127.0.0.1:{unused_tcp_port}"]) == 1
    assert capsys.readouterr().err.startswith(f"No gateway answers at 127.0.0.1:{unused_tcp_port}; ")


async def test_a_gateway_that_wants_a_token_is_answered_with_how_to_show_one(server: str, gateway: FakeGateway):
    gateway.errors = [TokenMissing("This gateway lets in who shows a token.")]
    code, out, err = await _seedvr2("jobs", "list", "--server", server)
    assert (code, out) == (1, "")
    assert "--token-file or SEEDVR2_TOKEN_FILE" in err


async def test_an_error_of_the_service_names_its_class_with_json(server: str, gateway: FakeGateway):
    code, out, err = await _seedvr2("jobs", "download", "job", "--server", server, "-o", "/nowhere/at/all", "--json")
    assert (code, err) == (1, "")
    assert set(json.loads(out)["error"]) == {"code", "message"}


async def test_a_reader_that_has_enough_is_no_error(server: str, gateway: FakeGateway):
    gateway.jobs = 200
    process = await asyncio.create_subprocess_shell(
        f"{sys.executable} -m services.cli jobs list --server {server} | true; exit ${{PIPESTATUS[0]}}",
        stderr=asyncio.subprocess.PIPE,
        executable="/bin/bash",
    )
    _, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, err) == (1, b"")
