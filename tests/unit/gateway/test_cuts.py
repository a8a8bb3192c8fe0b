"""Cuts of jobs, over a real store, real files and real child processes."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import InvalidVideo, NewerRelease, NotFound
from services.common.plan import Plan, plan_from_json
from services.gateway import keys
from services.gateway.cuts import CutFinder, Cuts, cuts_from_json, cuts_to_json
from services.gateway.job_request import JobRequest
from services.gateway.jobs import State
from services.gateway.sources import Source
from services.gateway.uploads import Finish
from tests.clips import shots
from tests.unit.gateway.examples import ref
from tests.unit.gateway.test_control import Gateway, started

REQUEST = JobRequest(upload_id="u", scale=1.0)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Cuts at 10 and 13, and 27 frames."""
    return shots.shots(tmp_path_factory.mktemp("clip") / "shots.mp4", 10, 3, 14)


async def send(gateway: Gateway, path: Path) -> None:
    async def messages() -> AsyncIterator[bytes | Finish]:
        yield path.read_bytes()
        yield Finish(sha256="")

    uploads = gateway.service.servicer._uploads
    await uploads.create(ref("u"), path.name, 0)
    await uploads.write(ref("u"), 0, messages())


async def planned(gateway: Gateway, job_id: str, request: JobRequest = REQUEST) -> Plan:
    """The plan of a job that succeeds."""
    await gateway.control.create(ref(job_id), request)
    await gateway.until(job_id, State.SUCCEEDED)
    return plan_from_json((await gateway.store.get(keys.job(ref(job_id), "plan.json")))[0])


async def test_a_plan_counts_on_cuts_and_a_second_one_is_the_same(tmp_path: Path, clip: Path):
    async with started(tmp_path / "store") as gateway:
        await send(gateway, clip)
        plan = await planned(gateway, "a")
        assert [(s.first, s.end, s.cuts) for s in plan.spans] == [(0, 10, ()), (10, 27, (13,))]
        assert await planned(gateway, "b") == plan
        ranged = await planned(gateway, "c", JobRequest(upload_id="u", scale=1.0, frames=(2, 20)))
        assert [(s.first, s.end, s.cuts) for s in ranged.spans] == [(2, 10, ()), (10, 20, (13,))]
        assert not any("Cuts" in note for job in "abc" for note in gateway.book.get(ref(job)).notes)


@pytest.mark.parametrize(("limit_s", "noted"), [(0.0, False), (0.001, True)])
async def test_a_job_goes_on_without_cuts_that_nobody_looked_for(tmp_path: Path, clip: Path, limit_s: float, noted: bool):
    async with started(tmp_path / "store", cuts_s=limit_s) as gateway:
        await send(gateway, clip)
        plan = await planned(gateway, "a")
        assert [(s.first, s.end, s.cuts) for s in plan.spans] == [(0, 27, ())]
        said = [note for note in gateway.book.get(ref("a")).notes if "longer than 0.001 s" in note]
        assert bool(said) is noted


class Looking:
    """A container that gives what it was told to, then fails or hangs."""

    def __init__(self, *seen: tuple[int, bool], then: Exception | None = None) -> None:
        self._seen = seen
        self._then = then
        self.waits = asyncio.Event()
        self.closed = False

    async def cuts(self, *_: object) -> AsyncGenerator[tuple[int, bool], None]:
        try:
            for found in self._seen:
                yield found
            if self._then is None:
                self.waits.set()
                await asyncio.sleep(60)
            else:
                raise self._then
        finally:
            self.closed = True


async def find(gateway: Gateway, looking: Looking, job_id: str = "j", limit_s: float = 60.0) -> tuple[Cuts, list[float]]:
    sources = gateway.control._sources
    source: Source = await sources.look(ref("u"))
    container: Any = looking
    finder = CutFinder(sources=sources, store=gateway.store, container=container, limit_s=limit_s)
    fractions: list[float] = []
    return await finder.job_cuts(ref(job_id), source, await sources.index(source), 0, 27, fractions.append), fractions


async def test_what_was_found_before_the_damage_counts_and_stays(tmp_path: Path, clip: Path):
    async with started(tmp_path / "store") as gateway:
        await send(gateway, clip)
        damaged = Looking((0, False), (10, True), (20, False), then=InvalidVideo("The file is damaged."))
        cuts, fractions = await find(gateway, damaged)
        assert cuts.frames == (10,)
        assert "up to frame 20 only (The file is damaged)" in cuts.note
        assert fractions == pytest.approx([0, 10 / 27, 20 / 27])
        assert (await find(gateway, Looking(then=AssertionError("looked again"))))[0] == cuts


async def test_cuts_that_take_too_long_are_left(tmp_path: Path, clip: Path):
    async with started(tmp_path / "store") as gateway:
        await send(gateway, clip)
        slow = Looking((0, False), (13, True))
        cuts, _ = await find(gateway, slow, limit_s=0.05)
        assert (cuts.frames, slow.closed) == ((13,), True)
        assert "longer than 0.05 s" in cuts.note


async def test_a_cancelled_job_looks_no_longer_and_keeps_nothing(tmp_path: Path, clip: Path):
    async with started(tmp_path / "store") as gateway:
        await send(gateway, clip)
        slow = Looking((0, False), (13, True))
        task = asyncio.create_task(find(gateway, slow))
        await asyncio.wait_for(slow.waits.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert slow.closed
        with pytest.raises(NotFound):
            await gateway.store.get(keys.job(ref("j"), "cuts.json"))


def test_cuts_survive_being_stored():
    cuts = Cuts(frames=(3, 9), note="n")
    assert cuts_from_json(cuts_to_json(cuts)) == cuts
    with pytest.raises(NewerRelease, match="schema version 2"):
        cuts_from_json(cuts_to_json(cuts).replace(b'"schema_version": 1', b'"schema_version": 2'))
