"""What the ranks of a group get for a life, without processes of their own."""

import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from services.inference.groups import load_orders
from services.inference.launch import start_rank
from services.inference.layout import layout_of
from services.inference.machines import Events, Machines
from services.inference.messages import LoadOrder
from services.inference.ranks import Start
from tests.unit.inference import quick_rank


class Elsewhere:
    """A machine whose ranks run here all the same; keeps what it is told."""

    def __init__(self) -> None:
        self.orders: list[int] = []
        self.over = False

    @contextlib.asynccontextmanager
    async def life(
        self, orders: Sequence[LoadOrder], link: socket.socket, events: Events
    ) -> AsyncIterator[Callable[[LoadOrder], Start]]:
        self.orders = [order.index for order in orders]
        self.link = link
        try:
            yield lambda order: lambda: start_rank(quick_rank.MODULE, index=order.index, threads=1, links=[])
        finally:
            self.over = True


EVENTS = Events(waiting=lambda loss: None, leaving=lambda loss: None)


def orders(ranks: int, machines: int = 1) -> tuple[LoadOrder, ...]:
    layout = layout_of(ranks=ranks, sequence=0, machines=machines)
    (group,) = load_orders(model="", directory=Path("/m"), sha256={}, device="cpu", dtype="auto", layout=layout, threads=1)
    return group


async def test_ranks_of_one_machine_meet_in_a_file_that_is_new_each_time(tmp_path: Path):
    machines, meetings = Machines(tmp_path), set()
    for _ in range(2):
        async with machines.life(orders(2), EVENTS) as life:
            meetings.add(life.meeting)
            Path(life.meeting.removeprefix("file://")).touch()
        assert list(tmp_path.iterdir()) == []
    assert len(meetings) == 2
    assert all(meeting.startswith(f"file://{tmp_path}/") for meeting in meetings)


async def test_a_rank_alone_meets_nobody(tmp_path: Path):
    async with Machines(tmp_path).life(orders(1), EVENTS) as life:
        assert life.meeting == ""
        assert len(life.starts) == 1


async def test_ranks_of_several_machines_meet_at_an_address_and_each_machine_starts_its_own(tmp_path: Path):
    first, second = Elsewhere(), Elsewhere()
    async with Machines(tmp_path, hosts=[first, second], address="a:1").life(orders(2, machines=3), EVENTS) as life:
        assert life.meeting == "tcp://a:1"
        assert len(life.starts) == 6
        assert (first.orders, second.orders) == ([2, 3], [4, 5])
        assert first.link.fileno() != second.link.fileno()
    assert first.over
    assert second.over


@pytest.mark.parametrize("fails", [False, True])
async def test_no_socket_stays_open_after_a_life(tmp_path: Path, fails: bool):
    before = len(list(Path("/proc/self/fd").iterdir()))
    with contextlib.suppress(KeyError):
        async with Machines(tmp_path, hosts=[Elsewhere()], address="a:1").life(orders(2, machines=2), EVENTS):
            if fails:
                raise KeyError
    assert len(list(Path("/proc/self/fd").iterdir())) == before
