"""Workers come, go, drain and are replaced."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest

from services.common.errors import SettingsError, WorkerUnavailable
from services.common.plan import Segment
from services.gateway.fleet.endpoints import Endpoint, Finder, Listed, Show
from services.gateway.fleet.workers import Fleet
from tests.integration.echo_worker import EchoSettings
from tests.unit.gateway.fleet.serving import TASK, packets, restore, serving


class Told:
    """Finds what a test says."""

    def __init__(self) -> None:
        self.show: Show = lambda _: None

    async def run(self, show: Show) -> None:
        self.show = show
        show([])
        await asyncio.Event().wait()

    def pools(self) -> frozenset[str]:
        return frozenset({"told"})


@contextlib.asynccontextmanager
async def fleet(*finders: Finder) -> AsyncIterator[Fleet]:
    workers = Fleet(finders, poll_s=0.05, stall_s=10)
    async with contextlib.aclosing(workers):
        await workers.start()
        yield workers


def states(workers: Fleet) -> dict[str, str]:
    return {view.address: view.state for view in workers.views()}


async def until(wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not wanted():
            await asyncio.sleep(0.01)


async def test_a_worker_gets_spans_from_when_it_is_ready_until_it_ends():
    told = Told()
    async with serving() as address, fleet(told) as workers:
        for endpoint, state in (
            (Endpoint(address=address, ready=False), "starting"),
            (Endpoint(address=address), "ready"),
            (Endpoint(address=address, terminating=True), "draining"),
        ):
            told.show([endpoint])
            await until(lambda state=state: states(workers) == {address: state})
            await until(lambda: not workers.views()[0].lost)
            assert states(workers) == {address: state}


async def test_a_worker_that_starts_or_ends_and_does_not_answer_is_not_called_lost():
    told = Told()
    async with fleet(told) as workers:
        told.show([Endpoint(address="127.0.0.1:1", ready=False), Endpoint(address="127.0.0.1:2", terminating=True)])
        await until(lambda: {view.detail for view in workers.views()} == {"no connection"})
        assert states(workers) == {"127.0.0.1:1": "starting", "127.0.0.1:2": "draining"}


@pytest.mark.parametrize("gone", [False, True])
async def test_what_a_worker_has_goes_on_when_it_drains_or_is_found_no_more(gone: bool):
    told = Told()
    async with serving() as address, fleet(told) as workers:
        told.show([Endpoint(address=address)])
        segments: list[Segment] = []
        begun, go = asyncio.Event(), asyncio.Event()

        async def keep(segment: Segment, data: bytes) -> None:
            segments.append(segment)
            begun.set()
            await go.wait()

        running = asyncio.create_task(workers.restore(address, TASK, packets(), keep, lambda *_: None))
        await asyncio.wait_for(begun.wait(), 20)
        told.show([] if gone else [Endpoint(address=address, terminating=True)])
        go.set()
        assert (await running).frames == 6
        assert segments == list(TASK.segments)


async def test_a_worker_that_is_found_no_more_gets_nothing_new():
    told = Told()
    async with serving() as address, fleet(told) as workers:
        told.show([Endpoint(address=address)])
        told.show([])
        assert workers.views() == []
        workers.suspect(address)
        with pytest.raises(WorkerUnavailable, match="is gone"):
            await restore(workers, address)


async def test_a_fleet_knows_the_pools_that_its_finders_know():
    async with fleet(Listed([Endpoint(address="127.0.0.1:1", pool="p"), Endpoint(address="127.0.0.1:2")]), Told()) as workers:
        assert workers.pools() == {"p", "told"}


async def test_another_pod_at_the_same_address_is_another_worker():
    told = Told()
    async with fleet(told) as workers:
        async with serving() as address:
            told.show([Endpoint(address=address, identity="old", pool="p")])
            await until(lambda: states(workers) == {address: "ready"})
        told.show([Endpoint(address=address, identity="new", pool="p", ready=False)])
        (view,) = workers.views()
        assert (view.status, view.detail, view.state) == (None, "not asked yet", "starting")


async def test_the_same_pod_with_more_known_of_it_stays_the_same_worker():
    told = Told()
    async with serving() as address, fleet(told) as workers:
        told.show([Endpoint(address=address)])
        await until(lambda: states(workers) == {address: "ready"})
        told.show([Endpoint(address=address, identity="u")])
        assert states(workers) == {address: "ready"}


async def test_two_finders_find_together():
    one, two = Told(), Told()
    async with serving() as address, serving() as other, fleet(one, two) as workers:
        one.show([Endpoint(address=address)])
        two.show([Endpoint(address=other)])
        await until(lambda: states(workers) == {address: "ready", other: "ready"})
        one.show([])
        assert states(workers) == {other: "ready"}


class Impossible:
    """Can't find anybody."""

    async def run(self, show: Callable[[Sequence[Endpoint]], None]) -> None:
        raise SettingsError("not like this")

    def pools(self) -> frozenset[str]:
        return frozenset()


async def test_a_fleet_whose_finder_is_set_up_wrong_does_not_start():
    workers = Fleet([Told(), Impossible()], poll_s=1, stall_s=1)
    async with contextlib.aclosing(workers):
        with pytest.raises(SettingsError, match="not like this"):
            await workers.start()


async def test_listeners_hear_of_who_comes_and_goes():
    told, heard = Told(), []
    async with serving(EchoSettings(pool="p")) as address, fleet(told) as workers:
        workers.on_change(lambda: heard.append(states(workers)))
        told.show([Endpoint(address=address)])
        await until(lambda: {address: "ready"} in heard)
        told.show([])
        assert heard[-1] == {}
