"""``python -m services.ui`` as a process."""

import asyncio
import contextlib
import json
import os
import signal
import ssl
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import httpx

from services.common.settings import as_environment
from services.ui.settings import UiSettings
from tests.certificates import Authority


@contextlib.asynccontextmanager
async def started(**settings: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """The process; killed if the test left it running."""
    environment = os.environ | {f"SEEDVR2_UI_{name.upper()}": value for name, value in settings.items()}
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "services.ui", env=environment, stderr=asyncio.subprocess.PIPE, stdin=asyncio.subprocess.DEVNULL
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def test_the_process_listens_says_where_and_ends_in_order(tmp_path: Path) -> None:
    ready, scratch = tmp_path / "ready.json", tmp_path / "scratch"
    scratch.mkdir()
    os.environ["TMPDIR"] = str(scratch)
    try:
        async with started(address="127.0.0.1:0", ready_file=str(ready), gateway_address="127.0.0.1:1") as process:
            lines = await lines_until(process, "listening")
            address = json.loads(ready.read_text())["address"]
            assert lines[-1]["address"] == address
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"http://{address}/healthz")).text == "ok\n"
            process.send_signal(signal.SIGTERM)
            _, rest = await process.communicate()
    finally:
        del os.environ["TMPDIR"]
    assert process.returncode == 0
    assert [json.loads(line)["level"] for line in rest.splitlines()] == ["info"] * len(rest.splitlines())
    assert not list(scratch.glob("seedvr2-ui-*"))


async def test_a_page_whose_certificates_can_not_be_used_does_not_start(tmp_path: Path) -> None:
    async with started(address="127.0.0.1:0", gateway_ca_file=str(tmp_path / "missing.pem")) as process:
        _, said = await process.communicate()
    assert (process.returncode, b"missing.pem can't be read" in said) == (2, True)


async def test_the_page_is_served_over_tls_where_a_certificate_is_named(tmp_path: Path) -> None:
    authority, ready = Authority(tmp_path / "ca"), tmp_path / "ready.json"
    pair = authority.sign("page")
    files = {"tls_certificate_file": str(pair.certificate), "tls_key_file": str(pair.key), "ready_file": str(ready)}
    async with started(address="127.0.0.1:0", gateway_address="127.0.0.1:1", **files) as process:
        await lines_until(process, "listening")
        context = ssl.create_default_context(cafile=authority.ca)
        async with httpx.AsyncClient(verify=context) as client:
            address = json.loads(ready.read_text())["address"]
            assert (await client.get(f"https://{address}/healthz")).text == "ok\n"
        process.send_signal(signal.SIGTERM)
        await process.communicate()
    assert process.returncode == 0


async def test_a_wrong_setting_is_one_line_and_status_two() -> None:
    async with started(adress="127.0.0.1:0") as process:
        _, text = await process.communicate()
    assert process.returncode == 2
    assert text.decode().count("\n") == 1
    assert "SEEDVR2_UI_ADRESS is not a setting" in text.decode()


async def test_an_address_that_is_none_is_one_line_and_status_two() -> None:
    async with started(**as_texts(UiSettings(address="127.0.0.1:99999"))) as process:
        _, text = await process.communicate()
    assert process.returncode == 2
    assert "Can't listen on 127.0.0.1:99999" in text.decode().splitlines()[-1]


def as_texts(settings: UiSettings) -> dict[str, str]:
    """Settings by their names in lower case."""
    return {name.removeprefix("SEEDVR2_UI_").lower(): value for name, value in as_environment(settings, "SEEDVR2_UI").items()}


async def lines_until(process: asyncio.subprocess.Process, message: str) -> list[dict[str, str]]:
    """Log lines up to the first one with ``message``."""
    assert process.stderr
    lines: list[dict[str, str]] = []
    async with asyncio.timeout(60):
        while not lines or lines[-1]["message"] != message:
            lines.append(json.loads(await process.stderr.readline()))
    return lines
