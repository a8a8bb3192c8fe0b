"""A parent whose child must not outlive it, for test_child.py."""

import asyncio

from services.common.channel import Channel
from services.common.child import Child, run_child


def main(channel: Channel) -> None:
    asyncio.run(_hold(channel))


async def _hold(channel: Channel) -> None:
    async with await Child.start("tests.unit.common.child_examples") as child:
        await child.send("hang")
        channel.send("started", pid=child.pid)
        await child.wait()


if __name__ == "__main__":
    run_child(main)
