import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest
from prometheus_client import CollectorRegistry

from services.common.errors import ClusterUnavailable, SettingsError
from services.common.metrics import GatewayMetrics
from services.gateway.keys import Ref
from services.gateway.leases.kubernetes import KubernetesLease, KubernetesLeases
from services.gateway.leases.records import LeaseTimes, Names
from tests.fakes.kubernetes.cluster import Cluster
from tests.unit.gateway.examples import ref

TIMES = LeaseTimes(lease_s=3, renew_s=0.5)
A = ref("a")


@contextlib.asynccontextmanager
async def gateway(cluster: Cluster, times: LeaseTimes = TIMES, instance: str = "") -> AsyncIterator[KubernetesLeases]:
    names, metrics = (
        Names(namespace=cluster.api.namespace, instance=instance or cluster.name),
        GatewayMetrics(CollectorRegistry()),
    )
    leases = KubernetesLeases(cluster.api, names, times, events=metrics.leases, watch_events=metrics.cluster_watch)
    await leases.start()
    try:
        yield leases
    finally:
        await leases.aclose()


def die(leases: KubernetesLeases) -> None:
    """As if it were killed: no renewal, and no farewell."""
    for task in (*leases._tasks, leases._presence._renewing):
        task.cancel()


async def taken(leases: KubernetesLeases, job: Ref = A) -> KubernetesLease:
    lease = await leases.acquire(job)
    assert lease is not None
    return lease


async def until_taken(leases: KubernetesLeases, job: Ref = A) -> KubernetesLease:
    async with asyncio.timeout(20):
        while (lease := await leases.acquire(job)) is None:
            await leases.freed(0.2)
    return lease


async def until(wanted: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not wanted():
            await asyncio.sleep(0.01)


async def test_a_job_has_one_driver(cluster: Cluster):
    async with gateway(cluster) as mine, gateway(cluster) as theirs:
        lease = await taken(mine)
        assert await theirs.acquire(A) is None
        assert await mine.acquire(A) is None
        other = await taken(theirs, ref("b"))
        await mine.release(lease)
        again = await until_taken(theirs)
        assert (lease.token, again.token, other.token) == (1, 2, 1)
        assert (again.ref, again.lost.is_set()) == (A, False)


async def test_of_many_that_want_a_job_at_once_one_gets_it(cluster: Cluster):
    async with contextlib.AsyncExitStack() as stack:
        gateways = [await stack.enter_async_context(gateway(cluster)) for _ in range(4)]
        leases = await asyncio.gather(*(each.acquire(A) for each in gateways))
        assert sum(lease is not None for lease in leases) == 1


async def test_installations_in_one_namespace_do_not_share_jobs(cluster: Cluster):
    async with gateway(cluster) as mine, gateway(cluster, instance=f"{cluster.name}-other") as other:
        await taken(mine)
        await taken(other)


async def test_a_driver_that_lives_keeps_its_jobs_for_longer_than_a_lease_lasts(cluster: Cluster):
    async with gateway(cluster) as mine, gateway(cluster) as theirs:
        lease = await taken(mine)
        for _ in range(14):
            await asyncio.sleep(TIMES.renew_s / 2)
            assert await theirs.acquire(A) is None
        assert not lease.lost.is_set()


async def test_a_driver_that_is_killed_loses_its_jobs_to_another(cluster: Cluster):
    async with gateway(cluster) as theirs, gateway(cluster) as mine:
        lease = await taken(mine)
        assert await theirs.acquire(A) is None
        die(mine)
        again = await until_taken(theirs)
        assert again.token == lease.token + 1
        assert lease.lost.is_set(), "by its own clock, before the other took it"


async def test_a_driver_that_stops_is_not_waited_for(cluster: Cluster):
    long = LeaseTimes(lease_s=600, renew_s=0.2)
    async with gateway(cluster, long) as theirs:
        async with gateway(cluster, long) as mine:
            await taken(mine)
            assert await theirs.acquire(A) is None
        assert (await until_taken(theirs)).token == 2


async def test_who_comes_after_all_have_died_waits_for_as_long_as_their_leases_last(cluster: Cluster):
    async with gateway(cluster) as mine:
        await taken(mine)
        die(mine)
        async with gateway(cluster) as theirs:
            assert await theirs.acquire(A) is None
            assert (await until_taken(theirs)).token == 2


async def test_a_gateway_with_other_settings_is_given_the_time_that_it_asked_for(cluster: Cluster):
    async with gateway(cluster, LeaseTimes(lease_s=600, renew_s=200)) as patient, gateway(cluster) as hasty:
        await taken(patient)
        assert await hasty.acquire(A) is None
        await asyncio.sleep(1.5 * TIMES.lease_s)
        assert await hasty.acquire(A) is None


async def test_a_job_that_is_gone_leaves_no_object(cluster: Cluster):
    async with gateway(cluster) as mine:
        await mine.release(await taken(mine), forget=True)
    found, _ = await cluster.api.list_all(cluster.leases, f"app.kubernetes.io/instance={cluster.name}")
    assert found == []


async def test_an_object_says_whose_it_is(cluster: Cluster):
    async with gateway(cluster) as mine:
        await taken(mine)
        found, _ = await cluster.api.list_all(cluster.leases, f"app.kubernetes.io/instance={cluster.name}")
        kinds = sorted(each["metadata"]["labels"]["seedvr2.io/lease"] for each in found)
        holders = {each["spec"]["holderIdentity"] for each in found}
    assert (kinds, len(holders)) == (["gateway", "job"], 1)
    assert all(each["metadata"]["labels"]["app.kubernetes.io/managed-by"] == "seedvr2-gateway" for each in found)
    assert [each["metadata"]["annotations"] for each in found if "annotations" in each["metadata"]] == [
        {"seedvr2.io/job": "local/a"}
    ]


async def test_who_holds_many_jobs_renews_no_more_than_who_holds_one(cluster: Cluster):
    fake = cluster.faked()
    async with gateway(cluster) as mine, gateway(cluster) as theirs:
        many = [ref(f"job-{number}") for number in range(50)]
        await asyncio.gather(*(taken(mine, job) for job in many))
        await until(lambda: all(theirs._seen.find(theirs._names.job(job)) for job in many))
        updates, gets = fake.count("update", "leases"), fake.count("get", "leases")
        for _ in range(5):
            await asyncio.sleep(TIMES.renew_s)
            assert await asyncio.gather(*(theirs.acquire(job) for job in many)) == [None] * 50
        assert fake.count("update", "leases") - updates < 30
        # A presence whose renewal was answered late is read again; no job is.
        assert fake.count("get", "leases") - gets < 30


# ---- the API server goes wrong ----


async def test_who_can_not_renew_lets_go_before_others_may_take_and_takes_up_again_after(cluster: Cluster):
    fake = cluster.faked()
    async with gateway(cluster) as mine, gateway(cluster) as theirs:
        lease = await taken(mine)
        assert await theirs.acquire(A) is None
        fake.go_away()
        assert await theirs.acquire(A) is None
        assert not lease.lost.is_set()
        await asyncio.wait_for(lease.lost.wait(), 20)
        assert await mine.acquire(A) is None
        await mine.release(lease)
        fake.come_back()
        again = await until_taken(mine)
        assert again.token == lease.token + 1
        assert not again.lost.is_set()
        assert await theirs.acquire(A) is None


async def test_a_server_that_fails_now_and_then_costs_nobody_a_job(cluster: Cluster):
    fake = cluster.faked()
    async with gateway(cluster) as mine:
        lease = await taken(mine)
        for _ in range(3):
            fake.failures += [500, 429]
            await until(lambda: not fake.failures)
        updates = fake.count("update", "leases")
        await until(lambda: fake.count("update", "leases") > updates + 2)
        assert not lease.lost.is_set()


async def test_an_answer_that_is_lost_on_its_way_costs_nobody_a_job(cluster: Cluster):
    fake = cluster.faked()
    async with gateway(cluster) as mine:
        lease = await taken(mine)
        # The renewal is done, but its answer comes too late.
        fake.pause_s = 1.2
        before = fake.count("update", "leases")
        await until(lambda: fake.count("update", "leases") > before)
        fake.pause_s = 0
        after = fake.count("update", "leases")
        await until(lambda: fake.count("update", "leases") > after + 2)
        assert not lease.lost.is_set()


async def test_a_presence_that_somebody_removed_is_lost(cluster: Cluster):
    async with gateway(cluster) as mine:
        lease = await taken(mine)
        found, _ = await cluster.api.list_all(
            cluster.leases, f"seedvr2.io/lease=gateway,app.kubernetes.io/instance={cluster.name}"
        )
        await cluster.api.delete(f"{cluster.leases}/{found[0]['metadata']['name']}")
        await asyncio.wait_for(lease.lost.wait(), 20)
        assert (await until_taken(mine)).token == 2


async def test_who_is_cancelled_while_it_asks_holds_nothing(cluster: Cluster):
    fake = cluster.faked()
    async with gateway(cluster) as mine, gateway(cluster) as theirs:
        fake.pause_s = 0.1
        asking = asyncio.create_task(mine.acquire(A))
        await until(lambda: fake.count("create", "leases") > 2)
        asking.cancel()
        await asyncio.wait({asking})
        assert asking.cancelled()
        fake.pause_s = 0
        assert await until_taken(theirs)


async def test_who_is_cancelled_while_it_asks_for_what_nobody_had_before_leaves_no_object(cluster: Cluster):
    fake = cluster.faked()
    async with gateway(cluster) as mine:
        fake.pause_s = 0.1
        asking = asyncio.create_task(mine.acquire(A))
        await until(lambda: fake.count("create", "leases") > 1)
        asking.cancel()
        await asyncio.wait({asking})
        fake.pause_s = 0
        await until(lambda: fake.count("delete", "leases") > 0)
        async with asyncio.timeout(20):
            while await mine.jobs():
                await asyncio.sleep(0.01)


async def test_all_that_have_a_lease_are_told_whoever_has_it(cluster: Cluster):
    async with gateway(cluster) as mine, gateway(cluster) as theirs, gateway(cluster, instance=f"{cluster.name}-other") as other:
        assert await mine.jobs() == []
        await taken(mine, ref("c"))
        await mine.release(await taken(mine, ref("b", "somebody")))
        await mine.release(await taken(mine, ref("d")), forget=True)
        await taken(other)
        assert await theirs.jobs() == [ref("c"), ref("b", "somebody")]


async def test_a_list_of_leases_that_the_server_loses_in_the_middle_is_an_outage(cluster: Cluster):
    fake = cluster.faked()
    async with gateway(cluster) as mine:
        # A renewal may ask, too.
        fake.failures += [410] * 5
        with pytest.raises(ClusterUnavailable):
            await mine.jobs()
        fake.failures.clear()


async def test_a_gateway_that_stops_while_the_server_is_silent_does_not_wait_for_each_of_its_jobs(cluster: Cluster):
    fake = cluster.faked()
    async with gateway(cluster) as mine:
        leases = [await taken(mine, ref(f"job-{number}")) for number in range(5)]
        fake.pause_s = 30
        for lease in leases:
            await mine.release(lease)
        assert sum(asked.verb == "update" and "-job-" in asked.name for asked in fake.requests) == 1
        fake.pause_s = 0


async def test_a_gateway_that_gives_back_often_gives_back_again_once_the_server_is_back(cluster: Cluster):
    fake = cluster.faked()
    async with gateway(cluster) as mine:
        leases = [await taken(mine, ref(f"job-{number}")) for number in range(60)]
        fake.go_away()
        await mine.release(leases.pop(), forget=True)
        fake.come_back()
        async with asyncio.timeout(20):
            while len(await mine.jobs()) == 60:
                await mine.release(leases.pop(), forget=True)
                await asyncio.sleep(0.2)


async def test_a_gateway_that_starts_while_the_server_is_away_begins_when_it_is_back(cluster: Cluster):
    fake = cluster.faked()
    fake.go_away()
    async with gateway(cluster) as mine:
        assert await mine.acquire(A) is None
        fake.come_back()
        await until_taken(mine)


@pytest.mark.parametrize("verb", ["create", "list"])
async def test_a_gateway_that_may_not_have_leases_does_not_start(cluster: Cluster, verb: str):
    cluster.faked().forbidden.add((verb, "leases"))
    with pytest.raises(SettingsError, match="give its service account that right"):
        async with gateway(cluster):
            pass
