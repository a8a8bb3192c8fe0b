import asyncio
from pathlib import Path

import pytest

from services.common.errors import RangeOutOfBounds, WrongState
from services.gateway.jobs import State
from tests.unit.gateway.examples import ref
from tests.unit.gateway.test_control import REQUEST, started, upload


async def test_a_playlist_grows_without_gaps_and_says_when_it_is_complete(tmp_path: Path):
    async with started(tmp_path / "store") as gateway:
        await upload(gateway, tmp_path)
        results = gateway.service.servicer._results
        await gateway.control.create(ref("a"), REQUEST)
        await gateway.until("a", State.SUCCEEDED)
        whole = await results.playlist(ref("a"))
        assert (whole.complete, whole.segments) == (True, 3)
        await gateway.store.delete(next(k for k in await gateway.store.keys("owners/local/segments/") if "/00000008-" in k))
        gap = await results.playlist(ref("a"))
        assert gap.segments == 1
        assert whole.m3u8.startswith(gap.m3u8.removesuffix("#EXT-X-ENDLIST\n"))


async def test_parts_outside_of_the_object_are_refused(tmp_path: Path):
    async with started(tmp_path / "store") as gateway:
        await upload(gateway, tmp_path)
        results = gateway.service.servicer._results
        await gateway.control.create(ref("a"), REQUEST)
        with pytest.raises(WrongState):
            await results.result(ref("a"), 0, 0)
        await gateway.until("a", State.SUCCEEDED)
        size = (await results.result(ref("a"), 0, 0)).size_bytes
        for offset, length in ((size + 1, 0), (-1, 0), (0, -1)):
            with pytest.raises(RangeOutOfBounds):
                await results.result(ref("a"), offset, length)


async def test_a_segment_that_vanished_is_restored_again_before_joining(tmp_path: Path):
    async with started(tmp_path / "store") as gateway:
        await upload(gateway, tmp_path)
        gateway.workers.go.clear()
        await gateway.control.create(ref("a"), REQUEST)
        await gateway.until("a", State.RESTORING)
        while not (keys := await gateway.store.keys("owners/local/segments/")):
            await asyncio.sleep(0.01)
        gateway.workers.go.set()
        await gateway.store.delete(keys[0])
        await gateway.until("a", State.SUCCEEDED)
        assert gateway.workers.spans == 2
