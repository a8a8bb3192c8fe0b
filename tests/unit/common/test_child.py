import asyncio
import os
from pathlib import Path

import pytest

from services.common.channel import channel_pair
from services.common.child import Child, ChildDied, Limits
from services.common.errors import InternalError, InvalidVideo

MODULE = "tests.unit.common.child_examples"


async def _ask(kind: str, limits: Limits | None = None) -> None:
    async with await Child.start(MODULE, limits=limits) as child:
        await child.send(kind)
        await child.receive()


async def test_a_child_answers_and_knows_no_secrets(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s3cret")
    async with await Child.start(MODULE, environment={"EXTRA": "1"}) as child:
        await child.send("echo", b"payload")
        message = await child.receive()
    assert bytes(message.payload) == b"payload"
    assert "EXTRA" in message.fields["environment"]
    assert "AWS_SECRET_ACCESS_KEY" not in message.fields["environment"]


async def test_an_error_of_a_child_arrives_as_the_same_class():
    with pytest.raises(InvalidVideo, match="no video in it") as caught:
        await _ask("refuse")
    assert caught.value.field == "x"


@pytest.mark.parametrize(("kind", "words"), [("crash", "SIGSEGV"), ("exit", "exited with code 7")])
async def test_a_child_that_dies_says_how(kind: str, words: str):
    with pytest.raises(ChildDied, match=words):
        await _ask(kind)


async def test_memory_beyond_the_limit_is_refused():
    with pytest.raises(InternalError, match="more memory"):
        await _ask("eat", Limits(memory_bytes=1 << 30))


async def test_cpu_time_beyond_the_limit_ends_the_child():
    with pytest.raises(ChildDied, match="CPU time"):
        await _ask("spin", Limits(cpu_s=1))


async def test_sockets_that_are_handed_on_are_open_in_the_child_in_their_order():
    (ours, theirs), (other, unused) = channel_pair(), channel_pair()
    with ours, theirs, other, unused:
        async with await Child.start(MODULE, handed=[unused, theirs]) as child:
            await child.send("write", place=1)
            assert await asyncio.to_thread(ours.recv, 5) == b"hello"


async def test_leaving_the_block_ends_the_child():
    async with await Child.start(MODULE) as child:
        await child.send("hang")
        pid = child.pid
    assert not Path(f"/proc/{pid}").exists()


async def test_a_block_that_is_cancelled_twice_ends_the_child_all_the_same():
    inside, pids = asyncio.Event(), []

    async def hang() -> None:
        async with await Child.start(MODULE) as child:
            await child.send("hang")
            pids.append(child.pid)
            inside.set()
            await asyncio.Event().wait()

    block = asyncio.create_task(hang())
    await inside.wait()
    for _ in range(3):
        block.cancel()
        await asyncio.sleep(0)
    with pytest.raises(asyncio.CancelledError):
        await block
    assert not Path(f"/proc/{pids[0]}").exists()


async def test_a_child_dies_with_its_parent():
    parent = await Child.start("tests.unit.common.parent_example")
    pid = (await parent.receive()).fields["pid"]
    os.kill(parent.pid, 9)
    await parent.wait()
    await _gone(pid)
    async with parent:
        pass


async def _gone(pid: int) -> None:
    async with asyncio.timeout(10):
        while Path(f"/proc/{pid}").exists() and "Z" not in Path(f"/proc/{pid}/stat").read_text().split(")")[1][:3]:
            await asyncio.sleep(0.02)
