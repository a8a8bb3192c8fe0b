import asyncio
import socket
from functools import partial
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from services.common.channel import Message, channel_pair
from services.common.errors import ModelBroken
from services.common.metrics import InferenceMetrics
from services.inference.launch import start_rank
from services.inference.messages import LoadOrder
from services.inference.ranks import Loss, Rank, RankLimits
from tests.unit.inference import quick_rank
from tests.unit.inference.quick_groups import rank_processes


class Life:
    """A rank process and what it says."""

    def __init__(self, directory: Path, *, module: str = quick_rank.MODULE, start_s: float = 20) -> None:
        order = LoadOrder(model="", directory=str(directory), device="cpu", dtype="auto", index=3, threads=1)
        self.registry = CollectorRegistry()
        self.ready = asyncio.Event()
        self.heard: list[Message] = []
        limits = RankLimits(start_s=start_s, stop_s=1)
        self.rank = Rank(order, limits, InferenceMetrics(self.registry), on_ready=self.ready.set, hear=self.heard.append)
        self.module = module

    async def loss(self, *links: socket.socket) -> Loss:
        start = partial(start_rank, self.module, index=3, threads=1, links=links)
        return await asyncio.wait_for(self.rank.live(start, ""), 20)


async def test_a_rank_that_is_killed_is_its_own_cause(tmp_path: Path):
    life = Life(tmp_path)
    ending = asyncio.create_task(life.loss())
    await life.ready.wait()
    assert life.rank.ready is not None
    assert life.registry.get_sample_value("seedvr2_gpu_memory_bytes", {"rank": "3"}) == 5
    rank_processes()[0].kill()
    assert await ending == Loss(index=3, why="it was ended by SIGKILL", error=None, echo=0)
    assert life.rank.ready is None
    assert life.registry.get_sample_value("seedvr2_gpu_memory_bytes", {"rank": "3"}) == 0, "nothing is held any more"
    assert life.registry.get_sample_value("seedvr2_rank_memory_bytes", {"rank": "3"}) == 0


async def test_what_a_rank_says_at_its_end_is_its_own_cause(tmp_path: Path):
    (tmp_path / "broken").touch()
    loss = await Life(tmp_path).loss()
    assert (loss.why, loss.echo) == ("dit.safetensors is missing", 0)
    assert isinstance(loss.error, ModelBroken)


async def test_a_rank_that_breaks_off_may_have_lost_another_one(tmp_path: Path):
    loss = await Life(tmp_path, module="tests.unit.inference.no_such_module").loss()
    assert (loss.why, loss.error, loss.echo) == ("it exited with code 1", None, 1)


async def test_a_rank_that_takes_too_long_is_given_up(tmp_path: Path):
    (tmp_path / "late").touch()
    loss = await Life(tmp_path, start_s=0.5).loss()
    assert (loss.why, loss.echo) == ("it was not ready after 0.5 s", 0)
    assert not rank_processes()


async def test_cancelling_ends_the_process(tmp_path: Path):
    life = Life(tmp_path)
    ending = asyncio.create_task(life.loss())
    await life.ready.wait()
    (process,) = rank_processes()
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert not process.is_running()


async def test_nobody_hears_what_is_said_to_a_rank_that_is_not_there(tmp_path: Path):
    assert not await Life(tmp_path).rank.send("restore")


async def test_links_are_open_in_the_rank_alone(tmp_path: Path):
    life, (ours, theirs) = Life(tmp_path), channel_pair()
    with ours, theirs:
        ending = asyncio.create_task(life.loss(theirs))
        await life.ready.wait()
        assert theirs.fileno() == -1
        rank_processes()[0].kill()
        await ending
        assert ours.recv(1) == b"", "its death is seen at the other end"


async def test_a_rank_that_talks_gibberish_is_lost(tmp_path: Path):
    loss = await Life(tmp_path, module="tests.unit.inference.gibberish_rank").loss()
    assert loss.why.startswith("a message of")
