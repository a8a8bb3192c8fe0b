"""Two ranks that share each span, in a real worker with the embedded model: the same frames, whatever happens to one of them."""

import asyncio
import resource
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from numpy.typing import NDArray

from services.common.errors import DeadlinePassed, GpuOutOfMemory, WorkerBroken
from services.common.plan import Segment
from tests.integration.inference_worker import Calls, Worker, begun, connected, packets_of, restore, restored, talk_on
from tests.unit.inference.clips import Clip, decoded, make_clip, read_clip

pytestmark = pytest.mark.integration

PAIR = {"ranks": 2, "sequence": 2, "rank_stop_s": 2}


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    found = Worker(tmp_path_factory.mktemp("pair"), **PAIR)
    yield found
    found.end()


@pytest.fixture
async def calls(pair: Worker) -> AsyncIterator[Calls]:
    async with connected(pair) as found:
        await found.until_state("ready")
        yield found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    found = Worker(tmp_path_factory.mktemp("alone"))
    yield found
    found.end()


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(make_clip(frames=12))


@pytest.fixture(scope="module")
def large() -> Clip:
    """Each of its slices takes a while, and much memory."""
    return read_clip(make_clip(frames=9, width=256, height=160))


@pytest.fixture(scope="module")
def undisturbed(pair: Worker, clip: Clip) -> dict[Segment, bytes]:
    """What the pair makes of the clip when nothing happens."""
    return asyncio.run(restored(pair, clip))


def samples(segments: dict[Segment, bytes]) -> NDArray[np.int16]:
    frames = [frame.to_ndarray().ravel() for data in segments.values() for frame in decoded(data)]
    return np.stack(frames).astype(np.int16)


async def test_a_worker_of_two_ranks_takes_one_span_at_a_time(pair: Worker, calls: Calls):
    status = await calls.status()
    assert (status.ranks, status.slots, status.free_slots) == (2, 1, 1)
    assert status.facts["sequence"] == "2"
    for rank in "01":
        assert pair.metric(f'seedvr2_rank_memory_bytes{{rank="{rank}"}}') > 100 << 20
        assert pair.metric(f'seedvr2_model_load_seconds{{rank="{rank}"}}') > 0


async def test_ranks_are_reached_from_their_own_machine_only(pair: Worker, calls: Calls):
    listening = [c.laddr.ip for rank in pair.ranks for c in rank.net_connections() if c.status == psutil.CONN_LISTEN]
    assert set(listening) <= {"127.0.0.1", "::1"}


async def test_two_ranks_restore_what_one_does(undisturbed: dict[Segment, bytes], alone: Worker, clip: Clip):
    difference = np.abs(samples(undisturbed) - samples(await restored(alone, clip)))
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 0.002 * difference.size


async def test_another_layout_has_another_fingerprint(calls: Calls, alone: Worker):
    async with connected(alone) as others:
        other, ours = await others.until_state("ready"), await calls.status()
    assert other.facts | {"sequence": "2"} == ours.facts
    assert other.fingerprint != ours.fingerprint


@pytest.mark.parametrize("victim", [0, 1])
async def test_a_killed_rank_is_an_error_in_words_and_a_fresh_group_gives_the_same_bytes(
    pair: Worker, calls: Calls, clip: Clip, undisturbed: dict[Segment, bytes], victim: int
):
    before, talk = pair.ranks, await begun(calls, clip)
    before[victim].kill()
    with pytest.raises(WorkerBroken, match=rf"Rank {victim} .* was lost in the middle of a span: it was ended by SIGKILL"):
        await talk.hold()
    status = await calls.status()
    assert (status.state, status.free_slots, status.models) == ("broken", 0, ())
    assert not await calls.serving()
    await calls.until_state("ready")
    assert await calls.serving()
    assert not any(p.is_running() for p in before)
    assert len(pair.ranks) == 2
    assert (await restore(calls, clip)).segments == undisturbed


async def test_a_rank_that_hangs_costs_its_span_and_its_group(
    pair: Worker, calls: Calls, clip: Clip, undisturbed: dict[Segment, bytes]
):
    before, talk = pair.ranks, await begun(calls, clip, stall_timeout_s=3.0)
    before[1].suspend()
    started = time.monotonic()
    with pytest.raises(DeadlinePassed, match="Nothing moved for 3 s in the middle of a span"):
        await talk.hold()
    assert time.monotonic() - started < 10
    await calls.until_state("broken", timeout_s=10)
    assert "did not stop within 2 s" in (await calls.status()).detail
    await calls.until_state("ready")
    assert not any(p.is_running() for p in before)
    assert (await restore(calls, clip)).segments == undisturbed


async def test_memory_that_one_rank_lacks_is_an_error_in_words(
    pair: Worker, calls: Calls, clip: Clip, large: Clip, undisturbed: dict[Segment, bytes]
):
    before, task = pair.ranks, await calls.task(large)
    resource.prlimit(before[1].pid, resource.RLIMIT_AS, (before[1].memory_info().vms, resource.RLIM_INFINITY))
    with pytest.raises(GpuOutOfMemory, match="Rank 1 of the worker ran out of memory"):
        await calls.restore(task, packets_of(large)).hold()
    await calls.until_state("ready")
    assert not any(p.is_running() for p in before)
    assert (await restore(calls, clip)).segments == undisturbed


async def test_cancelling_frees_both_ranks_within_a_slice(pair: Worker, calls: Calls, large: Clip):
    before = pair.ranks
    started = time.monotonic()
    talk = await begun(calls, large)
    slice_s = time.monotonic() - started
    talk.call.cancel()
    started = time.monotonic()
    await calls.until_state("ready", timeout_s=20)
    assert time.monotonic() - started < 3 * slice_s
    assert pair.ranks == before


async def test_sigterm_lets_a_span_of_two_ranks_end(tmp_path: Path, clip: Clip):
    own = Worker(tmp_path, **PAIR, drain_s=60)
    try:
        async with connected(own) as calls:
            talk = await begun(calls, clip)
            ranks = own.ranks
            own.process.send_signal(signal.SIGTERM)
            await talk_on(talk)
            assert talk.done is not None
            assert await asyncio.to_thread(own.process.wait, 20) == 0
            assert not any(p.is_running() for p in ranks)
    finally:
        own.end()
    assert "Traceback" not in own.log


async def test_a_layout_that_cannot_be_is_refused_in_a_sentence(tmp_path: Path):
    own = Worker(tmp_path, ranks=3, sequence=2)
    try:
        assert await asyncio.to_thread(own.process.wait, 60) == 2
    finally:
        own.end()
    assert own.log.splitlines()[-1] == (
        "SEEDVR2_INFERENCE: 3 ranks can't be divided into groups of 2; sequence must be one of 1, 3"
    )
