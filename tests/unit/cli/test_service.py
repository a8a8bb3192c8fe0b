import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.cli.service import ServiceProcess, ServiceSpec
from services.common.errors import SettingsError, Unavailable


def example(directory: Path, behaviour: str = "serve", address: str = "127.0.0.1:0") -> ServiceSpec:
    return ServiceSpec(
        name="example",
        module="tests.unit.cli.example_service",
        prefix="SEEDVR2_EXAMPLE",
        address=address,
        settings={"behaviour": behaviour},
        directory=directory,
    )


@contextlib.asynccontextmanager
async def _running(spec: ServiceSpec) -> AsyncIterator[tuple[ServiceProcess, asyncio.Queue[str]]]:
    told: asyncio.Queue[str] = asyncio.Queue()
    service = ServiceProcess(spec, told.put_nowait)
    try:
        await service.start()
        yield service, told
    finally:
        await service.stop(5)


async def _connects(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        _, writer = await asyncio.open_connection(host, int(port))
    except ConnectionRefusedError:
        return False
    writer.close()
    return True


async def _until_gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}/stat").exists() and Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z":
            await asyncio.sleep(0.02)


async def test_a_service_tells_the_free_port_that_it_took(tmp_path: Path):
    async with _running(example(tmp_path)) as (service, _):
        assert await _connects(service.address)
        assert f"listening on {service.address}" in service.log.read_text()
    assert not await _connects(service.address)


async def test_a_taken_port_gives_the_service_s_own_sentence(tmp_path: Path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            SettingsError, match=rf"The example service can't start: Can't listen on {address}: the port is taken\."
        ):
            async with _running(example(tmp_path, address=address)):
                pass


async def test_a_service_that_ends_at_once_names_its_log(tmp_path: Path):
    with pytest.raises(Unavailable, match=r"exit code 7.*example\.log"):
        async with _running(example(tmp_path, "crash")):
            pass


async def test_a_service_that_dies_is_started_again_on_the_same_address(tmp_path: Path):
    async with _running(example(tmp_path)) as (service, told):
        address, pid = service.address, service.pid
        os.kill(pid, signal.SIGKILL)
        assert "SIGKILL" in await asyncio.wait_for(told.get(), 5)
        async with asyncio.timeout(10):
            while not await _connects(address):
                await asyncio.sleep(0.05)
        assert service.address == address
        assert service.pid != pid


async def test_a_service_that_ignores_sigterm_is_killed_after_the_grace(tmp_path: Path):
    service = ServiceProcess(example(tmp_path, "stubborn"), (told := []).append)
    await service.start()
    pid = service.pid
    await service.stop(0.2)
    assert told == ["The example service doesn't end; it is killed."]
    assert not Path(f"/proc/{pid}").exists()


async def test_a_service_dies_with_the_process_that_started_it(tmp_path: Path):
    parent = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "tests.unit.cli.parent_example", str(tmp_path), stdout=asyncio.subprocess.PIPE
    )
    assert parent.stdout is not None
    pid = int(await asyncio.wait_for(parent.stdout.readline(), 20))
    assert Path(f"/proc/{pid}").exists()
    parent.kill()
    await parent.wait()
    await _until_gone(pid)


async def test_a_long_log_makes_room(tmp_path: Path):
    (tmp_path / "example.log").write_bytes(b"x" * (11 << 20))
    async with _running(example(tmp_path)) as (service, _):
        assert service.log.stat().st_size < 1000
    assert (tmp_path / "example.log.1").stat().st_size == 11 << 20
