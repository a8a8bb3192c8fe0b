import asyncio
import fcntl
from pathlib import Path

import pytest

from services.common.client import GatewayClient
from services.common.errors import Unavailable, WrongState
from tests.unit.common.client.conftest import SIZE_BYTES
from tests.unit.common.fake_gateway import FakeGateway, give_result
from tests.unit.common.relay import Relay


def _offsets(gateway: FakeGateway) -> list[int]:
    """Where downloads of more than a look began."""
    return [request.offset for name, request in gateway.calls if name == "DownloadResult" and request.length != 1]


def _part(directory: Path, gateway: FakeGateway) -> Path:
    return directory / f".out.mp4.{gateway.result_sha256[:16]}.part"


async def test_a_download_goes_on_where_a_cut_connection_stopped(
    gateway: FakeGateway, relay: Relay, client: GatewayClient, tmp_path: Path
):
    result = give_result(gateway, SIZE_BYTES)
    relay.down_bytes = 3 << 20
    told: list[int] = []
    info = await client.download_result("job", tmp_path / "out.mp4", on_progress=lambda done, _: told.append(done))
    assert relay.cuts == 1
    assert info.size_bytes == SIZE_BYTES
    assert (tmp_path / "out.mp4").read_bytes() == result
    assert len(_offsets(gateway)) == 2
    assert _offsets(gateway)[1] > 1 << 20
    assert told == sorted(told)
    assert told[-1] == SIZE_BYTES


async def test_a_download_that_was_stopped_goes_on_from_the_bytes_on_disk(
    gateway: FakeGateway, client: GatewayClient, tmp_path: Path
):
    result = give_result(gateway, SIZE_BYTES)
    some = asyncio.Event()
    first = asyncio.create_task(
        client.download_result("job", tmp_path / "out.mp4", on_progress=lambda done, _: done > 1 << 20 and some.set())
    )
    await some.wait()
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    kept = _part(tmp_path, gateway).stat().st_size
    assert 1 << 20 < kept < SIZE_BYTES
    await client.download_result("job", tmp_path / "out.mp4")
    assert _offsets(gateway)[-1] == kept
    assert (tmp_path / "out.mp4").read_bytes() == result
    assert [path.name for path in tmp_path.iterdir()] == ["out.mp4"]


async def test_a_download_that_had_everything_but_its_name_asks_for_no_byte(
    gateway: FakeGateway, client: GatewayClient, tmp_path: Path
):
    result = give_result(gateway, 1000)
    _part(tmp_path, gateway).write_bytes(result)
    await client.download_result("job", tmp_path / "out.mp4")
    assert _offsets(gateway) == []
    assert (tmp_path / "out.mp4").read_bytes() == result


async def test_bytes_of_another_result_are_not_gone_on_with(gateway: FakeGateway, client: GatewayClient, tmp_path: Path):
    give_result(gateway, 1000)
    _part(tmp_path, gateway).write_bytes(b"x" * 500)
    result = give_result(gateway, 1000)
    await client.download_result("job", tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == result


async def test_bytes_on_disk_that_were_damaged_are_found_out_and_fetched_again(
    gateway: FakeGateway, client: GatewayClient, tmp_path: Path
):
    result = give_result(gateway, 1000)
    _part(tmp_path, gateway).write_bytes(b"x" * 500)
    with pytest.raises(Unavailable, match="damaged"):
        await client.download_result("job", tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []
    await client.download_result("job", tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == result


async def test_a_damaged_download_leaves_nothing_behind(gateway: FakeGateway, client: GatewayClient, tmp_path: Path):
    give_result(gateway, SIZE_BYTES)
    gateway.result_sha256 = "0" * 64
    with pytest.raises(Unavailable, match="damaged"):
        await client.download_result("job", tmp_path / "out.mp4")
    assert list(tmp_path.iterdir()) == []


async def test_two_downloads_into_one_file_do_not_mix(gateway: FakeGateway, client: GatewayClient, tmp_path: Path):
    give_result(gateway, 1000)
    with _part(tmp_path, gateway).open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(WrongState, match=r"Another process is downloading out\.mp4"):
            await client.download_result("job", tmp_path / "out.mp4")


async def test_an_empty_result_is_a_file_too(gateway: FakeGateway, client: GatewayClient, tmp_path: Path):
    give_result(gateway, 0)
    await client.download_result("job", tmp_path / "out.mp4")
    assert (tmp_path / "out.mp4").read_bytes() == b""
