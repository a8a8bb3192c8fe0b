import asyncio

from services.gateway.leases.others import Others
from services.gateway.leases.records import LeaseTimes, Names, new_presence, renewed
from tests.fakes.kubernetes.cluster import Cluster

TIMES = LeaseTimes(lease_s=1, renew_s=0.2)


def names(cluster: Cluster) -> Names:
    return Names(namespace=cluster.api.namespace, instance=cluster.name)


async def present(cluster: Cluster, holder: str, now: float = 0.0) -> dict:
    """A gateway's presence, with a clock of its own."""
    return await cluster.api.create(cluster.leases, new_presence(names(cluster), holder, TIMES, now))


async def test_a_presence_that_stays_the_same_for_long_enough_is_that_of_a_dead_gateway(cluster: Cluster):
    await present(cluster, "a")
    others = Others(cluster.api, names(cluster), TIMES)
    await others.look()
    assert others.seems_alive("a")
    assert not await others.is_dead("a")
    await asyncio.sleep(TIMES.lease_s)
    assert await others.is_dead("a")
    assert not others.seems_alive("a")
    assert others.died.is_set()


async def test_only_what_is_seen_counts_not_what_clocks_say(cluster: Cluster):
    record = await present(cluster, "a", now=0.0)
    others = Others(cluster.api, names(cluster), TIMES)
    await others.look()
    for stamp in (4e9, 1.0, 2.0):
        await asyncio.sleep(TIMES.lease_s / 2)
        path = names(cluster).path(record["metadata"]["name"])
        record = await cluster.api.replace(path, renewed(record, stamp))
        assert not await others.is_dead("a")


async def test_who_was_dead_once_never_lives_again(cluster: Cluster):
    record = await present(cluster, "a")
    others = Others(cluster.api, names(cluster), TIMES)
    await others.look()
    await asyncio.sleep(TIMES.lease_s)
    await others.look()
    await cluster.api.replace(names(cluster).path(record["metadata"]["name"]), renewed(record, 1.0))
    await others.look()
    assert await others.is_dead("a")


async def test_who_has_said_farewell_is_dead_at_once(cluster: Cluster):
    record = await present(cluster, "a")
    others = Others(cluster.api, names(cluster), TIMES)
    await others.look()
    await cluster.api.delete(names(cluster).path(record["metadata"]["name"]))
    await others.look()
    assert others.died.is_set()
    assert await others.is_dead("a")
    assert await others.is_dead("never-seen")


async def test_what_a_dead_gateway_left_behind_is_removed_in_the_end(cluster: Cluster):
    await present(cluster, "a")
    others = Others(cluster.api, names(cluster), TIMES, kept=1)
    looking = asyncio.create_task(others.look_always())
    try:
        async with asyncio.timeout(20):
            while (await cluster.api.list_all(cluster.leases, names(cluster).presences))[0]:
                await asyncio.sleep(0.05)
    finally:
        looking.cancel()
        await asyncio.wait({looking})
