"""A worker whose two ranks are on two machines: a worker and a rank host, each with a process tree of its own."""

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from services.common.errors import DeadlinePassed, WorkerBroken
from services.common.plan import Segment
from tests.certificates import Authority
from tests.integration.inference_worker import Calls, RankServer, Worker, begun, connected, restore, restored, talk_on
from tests.s3 import free_ports
from tests.unit.inference.clips import Clip, make_clip, read_clip

pytestmark = pytest.mark.integration


class Group:
    """A worker and its rank host."""

    def __init__(self, directory: Path, tls: dict[str, Any] | None = None, **settings: Any) -> None:
        self._directory = directory
        self._tls = tls or {}
        self.address, meeting = (f"127.0.0.1:{port}" for port in free_ports(2))
        self.host = self.start_host()
        ca = self._tls.get("tls_client_ca_file", "")
        self._settings = {"rank_hosts": self.address, "meeting_address": meeting, "rank_stop_s": 2, "rank_hosts_ca_file": ca}
        self._settings |= self._tls | settings
        self.worker = self.start_worker()

    def start_host(self) -> RankServer:
        self.host = RankServer(
            "services.inference.hosts", "SEEDVR2_RANK_HOST", self._directory / "host", address=self.address, **self._tls
        )
        return self.host

    def start_worker(self) -> Worker:
        self.worker = Worker(self._directory / "worker", **self._settings)
        return self.worker

    @property
    def ranks(self) -> list[psutil.Process]:
        return [*self.worker.ranks, *self.host.ranks]

    def end(self) -> None:
        self.worker.end()
        self.host.end()


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Group]:
    with pytest.MonkeyPatch.context() as patch:
        # Elsewhere ranks find the interface of their machine's name; here both machines are this one.
        patch.setenv("GLOO_SOCKET_IFNAME", "lo")
        found = Group(tmp_path_factory.mktemp("group"))
        yield found
        found.end()


@pytest.fixture
async def calls(group: Group) -> Any:
    async with connected(group.worker) as found:
        await found.until_state("ready")
        yield found


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(make_clip(frames=12))


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, clip: Clip) -> dict[Segment, bytes]:
    """What two ranks of one machine make of the clip."""
    pair = Worker(tmp_path_factory.mktemp("pair"), ranks=2)
    try:
        return asyncio.run(restored(pair, clip))
    finally:
        pair.end()


async def until_gone(processes: list[psutil.Process]) -> None:
    async with asyncio.timeout(20):
        while any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes):
            await asyncio.sleep(0.05)


async def test_ranks_of_two_machines_restore_what_those_of_one_do(
    group: Group, calls: Calls, clip: Clip, together: dict[Segment, bytes]
):
    assert (await restore(calls, clip)).segments == together


async def test_a_worker_tells_the_ranks_of_all_machines_and_each_machine_the_memory_of_its_own(group: Group, calls: Calls):
    status = await calls.status()
    assert (status.ranks, status.slots) == (2, 1)
    assert status.facts["machines"] == "2", "how ranks exchange may decide how sums are rounded"
    assert (len(group.worker.ranks), len(group.host.ranks)) == (1, 1)
    assert group.worker.metric('seedvr2_rank_memory_bytes{rank="0"}') > 100 << 20
    assert group.worker.metric('seedvr2_model_load_seconds{rank="1"}') > 0
    assert group.worker.metric("seedvr2_ready") == 1
    assert group.host.metric('seedvr2_rank_memory_bytes{rank="1"}') > 100 << 20
    assert group.host.metric("seedvr2_rank_host_ranks") == 1


async def test_a_killed_rank_of_another_machine_is_an_error_in_words_and_a_fresh_group_gives_the_same_bytes(
    group: Group, calls: Calls, clip: Clip, together: dict[Segment, bytes]
):
    before, talk = group.ranks, await begun(calls, clip)
    group.host.rank.kill()
    with pytest.raises(WorkerBroken, match=r"Rank 1 .* was lost in the middle of a span: it was ended by SIGKILL"):
        await talk.hold()
    assert (await calls.status()).state == "broken"
    assert not await calls.serving()
    await calls.until_state("ready")
    assert not any(process.is_running() for process in before)
    assert (await restore(calls, clip)).segments == together


async def test_a_killed_machine_is_an_error_in_words_and_the_group_waits_until_it_is_back(
    group: Group, calls: Calls, clip: Clip, together: dict[Segment, bytes]
):
    before, talk = group.ranks, await begun(calls, clip)
    group.host.end()
    with pytest.raises(WorkerBroken, match=rf"Rank 1 .* its rank host at {group.address} was lost \(no connection\)"):
        await talk.hold()
    await until_gone(before)
    async with asyncio.timeout(20):
        while "waiting for the rank host" not in (status := await calls.status()).detail:
            await asyncio.sleep(0.05)
    assert (status.state, status.free_slots, status.models) == ("broken", 0, ())
    assert status.detail == f"rank 1: waiting for the rank host at {group.address}: no connection"
    assert not await calls.serving()
    assert group.worker.ranks == [], "no model is loaded before all machines are there"
    group.start_host()
    await calls.until_state("ready")
    assert await calls.serving()
    assert (await restore(calls, clip)).segments == together


async def test_cancelling_stops_the_ranks_of_all_machines_and_spares_them(
    group: Group, calls: Calls, clip: Clip, together: dict[Segment, bytes]
):
    before, talk = group.ranks, await begun(calls, clip)
    talk.call.cancel()
    await calls.until_state("ready", timeout_s=20)
    assert group.ranks == before
    assert (await restore(calls, clip)).segments == together


@pytest.mark.parametrize("whole", [False, True], ids=["rank", "machine"])
async def test_what_hangs_on_another_machine_costs_its_span_and_its_group(
    group: Group, calls: Calls, clip: Clip, together: dict[Segment, bytes], whole: bool
):
    before, talk = group.ranks, await begun(calls, clip, stall_timeout_s=3.0)
    rank, host = group.host.rank, psutil.Process(group.host.process.pid)
    rank.suspend()
    if whole:
        host.suspend()
    started = time.monotonic()
    with pytest.raises(DeadlinePassed, match="Nothing moved for 3 s in the middle of a span"):
        await talk.hold()
    assert time.monotonic() - started < 10
    await calls.until_state("broken", timeout_s=10)
    host.resume()
    await calls.until_state("ready")
    assert not any(process.is_running() for process in before)
    assert (await restore(calls, clip)).segments == together


async def test_a_worker_that_dies_leaves_no_rank_and_its_host_serves_the_next_one(
    group: Group, calls: Calls, clip: Clip, together: dict[Segment, bytes]
):
    before, talk = group.ranks, await begun(calls, clip)
    group.worker.end()
    await until_gone(before)
    assert group.host.process.poll() is None
    talk.call.cancel()
    group.start_worker()
    assert await restored(group.worker, clip) == together


async def test_a_machine_that_is_about_to_stop_lets_the_span_end_and_gets_no_other_one(
    group: Group, clip: Clip, together: dict[Segment, bytes]
):
    async with connected(group.worker) as calls:
        talk = await begun(calls, clip)
        group.host.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(20):
            while (await calls.status()).state != "broken":
                await asyncio.sleep(0.02)
        assert not await calls.serving()
        await talk_on(talk)
        assert talk.done is not None
        assert await asyncio.to_thread(group.host.process.wait, 20) == 0
        assert "Traceback" not in group.host.log
        group.start_host()
        await calls.until_state("ready")
        assert (await restore(calls, clip)).segments == together


async def test_machines_that_show_each_other_certificates_let_nobody_else_in(
    tmp_path: Path, clip: Clip, together: dict[Segment, bytes], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    ours, others = Authority(tmp_path / "ours"), Authority(tmp_path / "others", "somebody else")
    pair, stranger = ours.sign("worker"), others.sign("stranger")
    shown = {"tls_certificate_file": pair.certificate, "tls_key_file": pair.key, "tls_client_ca_file": ours.ca}
    own = Group(tmp_path, shown, rank_hosts_ca_file=ours.ca, address="127.0.0.1:0")
    outsider = Worker(
        tmp_path / "outsider", rank_hosts=own.address, meeting_address="127.0.0.1:1", rank_hosts_ca_file=ours.ca,
        tls_certificate_file=stranger.certificate, tls_key_file=stranger.key,
    )  # fmt: skip
    try:
        async with asyncio.timeout(120):
            while own.worker.metric("seedvr2_ready") != 1:
                await asyncio.sleep(0.1)
            while "a machine is missing" not in outsider.log:
                await asyncio.sleep(0.1)
        assert outsider.ranks == []
        assert own.worker.metric("seedvr2_ready") == 1
    finally:
        outsider.end()
        own.end()
