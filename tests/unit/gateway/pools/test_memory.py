"""What gateways on one store know of pools, whose workers come and go; the store is a real directory."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from services.common.errors import StoreUnavailable
from services.gateway import keys
from services.gateway.pools.memory import RememberedPools
from services.gateway.ports import WorkerView
from services.gateway.store.local import LocalStore
from tests.unit.gateway.examples import MODEL, view
from tests.unit.gateway.test_dispatch import Listed

DAY_S = 86400.0


class Gathered(Listed):
    """Workers, and pools that are known by name, as tests say."""

    def __init__(self, *views: WorkerView, pools: frozenset[str] = frozenset()) -> None:
        super().__init__(*views)
        self.named = pools

    def pools(self) -> frozenset[str]:
        return self.named


class LosableStore(LocalStore):
    """A store that tests can take away."""

    away = False

    async def put(self, key: str, data: bytes, *, if_absent: bool = False, if_match: str | None = None) -> str:
        if self.away:
            raise StoreUnavailable("It is away.")
        return await super().put(key, data, if_absent=if_absent, if_match=if_match)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LocalStore]:
    with contextlib.closing(LocalStore(tmp_path, min_free_bytes=0)) as store:
        yield store


class Clock:
    """Says what time it is, as tests want."""

    def __init__(self, now: float = 1e9) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def remembering(
    fleet: Gathered, store: LocalStore, clock: Callable[[], float] = time.time
) -> AsyncIterator[RememberedPools]:
    async with contextlib.aclosing(RememberedPools(fleet, store, keep_s=30 * DAY_S, clock=clock)) as pools:
        await pools.start()
        yield pools


def states(pools: RememberedPools) -> dict[str, str]:
    return {view.pool: view.state for view in pools.views()}


def models(pools: RememberedPools) -> list[str]:
    return [model.name for view in pools.views() if view.status for model in view.status.models]


async def written(store: LocalStore, pool: str, wanted: Callable[[bytes], bool] = bool) -> bytes:
    """What the store has of a pool, once it is as it should be."""
    async with asyncio.timeout(20):
        while keys.pool(pool) not in await store.keys(keys.POOLS) or not wanted((await store.get(keys.pool(pool)))[0]):
            await asyncio.sleep(0.01)
    return (await store.get(keys.pool(pool)))[0]


async def test_a_pool_that_has_nobody_left_is_still_known_for_what_it_served(store: LocalStore):
    fleet = Gathered(view("a", pool="p"), view("b", pool="p"), view("c", pool="q"))
    async with remembering(fleet, store) as pools:
        assert states(pools) == {"p": "ready", "q": "ready"}
        fleet.become(view("b", pool="p"))
        assert states(pools) == {"p": "ready", "q": "gone"}
        fleet.become()
        assert states(pools) == {"p": "gone", "q": "gone"}
        assert models(pools) == ["nano", "nano"]
        fleet.become(view("d", pool="p"))
        assert states(pools) == {"p": "ready", "q": "gone"}


async def test_a_pool_is_known_to_a_gateway_that_starts_when_it_has_no_worker(store: LocalStore):
    async with remembering(Gathered(view("a", pool="p", megapixels_per_second=2.0)), store):
        await written(store, "p")
    async with remembering(Gathered(), store) as pools:
        (gone,) = pools.views()
        assert (gone.pool, gone.state, gone.address) == ("p", "gone", "a")
        assert gone.status is not None
        assert (gone.status.models, gone.status.megapixels_per_second) == ((MODEL,), 2.0)


async def test_a_worker_that_has_just_been_started_does_not_hide_what_its_pool_serves(store: LocalStore):
    fleet = Gathered(view("a"))
    async with remembering(fleet, store) as pools:
        fleet.become(view("b", state="starting", models=(), fingerprint=""))
        assert models(pools) == ["nano"]
        assert [each.state for each in pools.views()] == ["starting", "gone"]
        fleet.become(view("b"))
        assert [each.state for each in pools.views()] == ["ready"]


async def test_what_another_gateway_has_seen_is_known_without_a_restart(store: LocalStore):
    heard: list[list[str]] = []
    async with remembering(Gathered(), store) as pools:
        pools.on_change(lambda: heard.append(models(pools)))
        async with remembering(Gathered(view("a")), store):
            await written(store, "p")
        await pools.keep()
        assert models(pools) == ["nano"]
        assert heard == [["nano"]]


async def test_a_pool_is_written_when_it_serves_something_else_and_not_before(store: LocalStore):
    fleet = Gathered(view("a"))
    async with remembering(fleet, store) as pools:
        first = await written(store, "p")
        fleet.become(view("b", worker_id="2", state="busy", free_slots=0, megapixels_per_second=5.0, detail="x"))
        await pools.keep()
        assert await written(store, "p") == first
        fleet.become(view("b", fingerprint="f2"))
        await written(store, "p", lambda data: b'"f2"' in data)


async def test_while_workers_are_replaced_the_old_ones_stand_for_their_pool_until_none_is_ready(store: LocalStore):
    fleet = Gathered(view("b"))
    async with remembering(fleet, store) as pools:
        await written(store, "p")
        fleet.become(view("a", fingerprint="f2"), view("b"))
        await pools.keep()
        assert b'"f1"' in await written(store, "p")
        fleet.become(view("a", fingerprint="f2"), view("b", state="draining"))
        await written(store, "p", lambda data: b'"f2"' in data)


async def test_a_pool_that_nobody_names_any_more_is_forgotten_some_day(store: LocalStore):
    clock = Clock()
    fleet = Gathered(view("a", pool="p"), view("b", pool="q"), pools=frozenset({"q"}))
    async with remembering(fleet, store, clock) as pools:
        await written(store, "q")
        fleet.become()
        for days, known in ((29, {"p": "gone", "q": "gone"}), (2, {"q": "gone"}), (60, {"q": "gone"})):
            clock.now += days * DAY_S
            await pools.keep()
            assert states(pools) == known
        assert await store.keys(keys.POOLS) == [keys.pool("q")]
        fleet.named = frozenset()
        clock.now += 31 * DAY_S
        await pools.keep()
        assert (states(pools), await store.keys(keys.POOLS)) == ({}, [])


async def test_a_pool_that_is_named_is_known_after_a_long_time_without_a_gateway(store: LocalStore):
    async with remembering(Gathered(view("a", pool="p"), view("b", pool="q")), store):
        await written(store, "q")
    later = Clock(time.time() + 60 * DAY_S)
    async with remembering(Gathered(pools=frozenset({"q"})), store, later) as pools:
        assert states(pools) == {"q": "gone"}
        assert await store.keys(keys.POOLS) == [keys.pool("q")]


async def test_a_pool_that_is_there_is_noted_once_a_day(store: LocalStore):
    clock = Clock()
    async with remembering(Gathered(view("a")), store, clock) as pools:
        first = await written(store, "p")
        clock.now += 0.9 * DAY_S
        await pools.keep()
        assert await written(store, "p") == first
        clock.now += 0.2 * DAY_S
        await pools.keep()
        assert json.loads(await written(store, "p"))["seen_at"] == clock.now


async def test_a_pool_that_another_gateway_has_seen_of_late_is_not_forgotten(store: LocalStore):
    clock = Clock()
    first, second = Gathered(view("a")), Gathered()
    async with remembering(first, store, clock), remembering(second, store, clock) as pools:
        await written(store, "p")
        await pools.keep()
        clock.now += 31 * DAY_S
        first.become(view("a", detail="still there"))
        await written(store, "p", lambda data: json.loads(data)["seen_at"] == clock.now)
        await pools.keep()
        assert states(pools) == {"p": "gone"}
        assert len(await store.keys(keys.POOLS)) == 1


async def test_a_record_that_cannot_be_read_hides_no_other_and_is_replaced(store: LocalStore, caplog: pytest.LogCaptureFixture):
    await store.put(keys.pool("p"), b"{}")
    async with remembering(Gathered(view("b", pool="q")), store) as pools:
        await written(store, "q")
        await pools.keep()
        assert states(pools) == {"q": "ready"}
        assert [each.message for each in caplog.records].count("what a pool served can't be read") == 1
    async with remembering(Gathered(view("a", pool="p")), store):
        await written(store, "p", lambda data: data != b"{}")


async def test_what_could_not_be_written_is_known_all_the_same_and_written_later(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    with contextlib.closing(LosableStore(tmp_path, min_free_bytes=0)) as store:
        store.away = True
        fleet = Gathered(view("a"))
        async with remembering(fleet, store) as pools:
            async with asyncio.timeout(20):
                while "can't be kept now: It is away." not in caplog.text:
                    await asyncio.sleep(0.01)
            fleet.become()
            assert states(pools) == {"p": "gone"}
            store.away = False
            await pools.keep()
            assert await store.keys(keys.POOLS) == [keys.pool("p")]
