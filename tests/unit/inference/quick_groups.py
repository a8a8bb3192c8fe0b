"""Groups of ranks without a model, and a span for them whose frames the test sends."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil

from services.common.channel import Channel
from services.common.metrics import InferenceMetrics
from services.inference.groups import Group, Groups, load_orders
from services.inference.layout import ParallelLayout
from services.inference.machines import Machines
from services.inference.messages import RestoreOrder
from services.inference.orders import Order
from services.inference.ranks import RankLimits
from tests.unit.inference import quick_rank


def quick_groups(
    directory: Path, metrics: InferenceMetrics, *, ranks: int = 1, sequence: int = 1, start_s: float = 20, stop_s: float = 2
) -> Groups:
    """Their ranks do what files in ``directory`` wish."""
    layout = ParallelLayout(world_size=ranks, sequence=sequence)
    orders = load_orders(model="", directory=directory, sha256={}, device="cpu", dtype="auto", layout=layout, threads=1)
    limits = RankLimits(start_s=start_s, stop_s=stop_s)
    return Groups(orders, limits, metrics, Machines(directory, module=quick_rank.MODULE))


async def until(groups: Groups, condition: Callable[[], bool], timeout_s: float = 20) -> None:
    changed = asyncio.Event()
    groups.on_change(changed.set)
    async with asyncio.timeout(timeout_s):
        while not condition():
            await changed.wait()
            changed.clear()


def rank_processes() -> list[psutil.Process]:
    """In the order in which they were started."""
    return sorted((p for p in psutil.Process().children() if _is_rank(p)), key=lambda process: process.pid)


def _is_rank(process: psutil.Process) -> bool:
    try:
        return quick_rank.MODULE in process.cmdline()
    except psutil.Error:
        # It has just ended.
        return False


@contextlib.asynccontextmanager
async def order_of(group: Group, path: Path, *, preview: bool = False) -> AsyncIterator[tuple[Order, Channel]]:
    """A span for a group, and the other end of its frames."""
    listener = socket.socket(socket.AF_UNIX)
    with listener:
        listener.bind(str(path))
        listener.listen(1)
        listener.setblocking(False)
        order = await group.begin(
            RestoreOrder(
                number=group.next_number(), path=str(path), width=2, height=2, seed=0, first_frame=0, cuts=(), colour="none",
                window_latents=0, overlap_latents=0, bit_depth=8, preview=preview,
            )
        )  # fmt: skip
        end, _ = await asyncio.wait_for(asyncio.get_running_loop().sock_accept(listener), 10)
        with end:
            yield order, Channel(end)
