import asyncio
import json
import signal
import sys

import pytest

from services.cli.__main__ import main


def test_the_exit_code_is_that_of_the_command(capsys: pytest.CaptureFixture[str]):
    assert main(["restore", "--scale", "x"]) == 2
    assert "'x' is not a number" in capsys.readouterr().err


async def test_an_interrupt_while_python_still_imports_is_no_traceback():
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-X", "importtime", "-m", "services.cli", "jobs", "list", "--server", "127.0.0.1:1", "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert process.stderr
    while b"google.protobuf" not in await process.stderr.readline():
        assert not process.stderr.at_eof()
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert (process.returncode, json.loads(out)["error"]["code"]) == (130, "Interrupted")
    assert b"Traceback" not in err
