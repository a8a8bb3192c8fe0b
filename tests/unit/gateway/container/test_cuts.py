"""Cuts in videos of real frames, whole and damaged, found by real child processes."""

import asyncio
import os
import random
from dataclasses import replace
from pathlib import Path

import pytest

from services.common.errors import InvalidVideo
from services.gateway.container.adapter import Container
from tests.clips import shots
from tests.unit.gateway.container.looking import LIMITS, look


async def cuts_in(container: Container, path: Path, first: int = 0, end: int | None = None) -> list[int]:
    info, index = await look(container, path)
    seen = container.cuts(path, info, index, first, index.frames if end is None else end)
    return [frame async for frame, begins_shot in seen if begins_shot]


def children() -> list[str]:
    found = (Path("/proc/self/task") / str(os.getpid()) / "children").read_text().split()
    names = [(Path("/proc") / child / "cmdline").read_text() for child in found]
    return [name for name in names if "services.gateway.container.child" in name]


async def test_hard_cuts_are_found_at_their_frames(container: Container, tmp_path: Path):
    path = shots.shots(tmp_path / "s.mp4", 8, 5, 1, 7, 2, 9)
    assert await cuts_in(container, path) == [8, 13, 14, 21, 23]
    assert await cuts_in(container, path) == await cuts_in(container, path)


async def test_a_range_has_its_own_cuts_only(container: Container, tmp_path: Path):
    path = shots.shots(tmp_path / "s.mp4", 8, 5, 6)
    assert await cuts_in(container, path, 8, 13) == []
    assert await cuts_in(container, path, 7, 14) == [8, 13]


async def test_a_flash_is_a_shot_of_its_own_and_a_fade_is_none(container: Container, tmp_path: Path):
    assert await cuts_in(container, shots.flash(tmp_path / "flash.mp4", 14, 6)) == [6, 7]
    assert await cuts_in(container, shots.fade(tmp_path / "fade.mp4", 12)) == []


async def test_a_single_shot_has_no_cut(container: Container):
    assert await cuts_in(container, shots.BUNNY) == []


@pytest.mark.parametrize("name", ["cut.avi", "cut.h264"])
async def test_frames_are_counted_where_packets_have_no_time_stamps(container: Container, tmp_path: Path, name: str):
    path = shots.shots(tmp_path / name, 6, 6, 6)
    assert (await look(container, path))[1].by_order
    assert await cuts_in(container, path) == [6, 12]
    assert await cuts_in(container, path, 7) == [12]


async def test_looking_tells_when_it_begins_and_can_be_stopped(container: Container, tmp_path: Path):
    path = shots.shots(tmp_path / "s.mp4", 8, 5)
    info, index = await look(container, path)
    looking = container.cuts(path, info, index, 0, index.frames)
    assert await anext(looking) == (0, False)
    assert children()
    await looking.aclose()
    assert not children()


async def test_looking_for_cuts_never_keeps_others_from_a_probe(container: Container, tmp_path: Path):
    path = shots.shots(tmp_path / "s.mp4", 8, 5)
    info, index = await look(container, path)
    looks = [container.cuts(path, info, index, 0, index.frames) for _ in range(2)]
    await anext(looks[0])
    waiting = asyncio.create_task(anext(looks[1]))
    assert (await asyncio.wait_for(container.probe(path), 20)).codec.width == 320
    assert not waiting.done()
    await looks[0].aclose()
    assert await asyncio.wait_for(waiting, 20) == (0, False)
    await looks[1].aclose()


async def test_a_damaged_packet_costs_no_cut_but_its_own(container: Container, tmp_path: Path):
    path = shots.shots(tmp_path / "s.mp4", 12, 12, 12)
    info, index = await look(container, path)
    data = bytearray(path.read_bytes())
    at = len(data) // 2
    data[at : at + 2000] = random.Random(0).randbytes(2000)
    path.write_bytes(data)
    found = [frame async for frame, begins_shot in container.cuts(path, info, index, 0, index.frames) if begins_shot]
    assert {12, 24} <= set(found)


async def test_a_process_that_falls_silent_is_ended_in_words(container: Container, tmp_path: Path):
    path = shots.shots(tmp_path / "s.mp4", 8, 5)
    info, index = await look(container, path)
    hasty = Container(replace(LIMITS, silence_s=0.001))
    with pytest.raises(InvalidVideo, match="made no progress"):
        [seen async for seen in hasty.cuts(path, info, index, 0, index.frames)]
