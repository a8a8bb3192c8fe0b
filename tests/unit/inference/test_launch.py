import psutil
import pytest

from services.common.channel import channel_pair
from services.inference.launch import start_rank
from tests.unit.inference import quick_rank

INTERFACES = ("GLOO_SOCKET_IFNAME", "NCCL_SOCKET_IFNAME")


async def environment(*, spread: bool) -> dict[str, str]:
    """Of a rank's process."""
    async with await start_rank(quick_rank.MODULE, index=5, threads=3, links=[], spread=spread) as child:
        return psutil.Process(child.pid).environ()


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in INTERFACES:
        monkeypatch.delenv(name, raising=False)


async def test_ranks_that_are_all_here_listen_where_nobody_else_reaches_them():
    found = await environment(spread=False)
    assert [found[name] for name in INTERFACES] == ["lo", "lo"]


async def test_ranks_of_other_machines_reach_those_here():
    assert not set(INTERFACES) & (await environment(spread=True)).keys()


@pytest.mark.parametrize("spread", [False, True])
async def test_what_libraries_read_is_handed_on_and_secrets_are_not(monkeypatch: pytest.MonkeyPatch, spread: bool):
    monkeypatch.setenv("NCCL_SOCKET_IFNAME", "eth1")
    monkeypatch.setenv("NCCL_DEBUG", "INFO")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    found = await environment(spread=spread)
    assert (found["NCCL_SOCKET_IFNAME"], found["NCCL_DEBUG"], found["OMP_NUM_THREADS"]) == ("eth1", "INFO", "3")
    assert found["SEEDVR2_SERVICE"] == "inference-rank-5"
    assert "AWS_SECRET_ACCESS_KEY" not in found


async def test_a_rank_alone_keeps_its_links_open():
    ours, theirs = channel_pair()
    with ours:
        async with await start_rank(quick_rank.MODULE, index=0, threads=1, links=[theirs]):
            assert theirs.fileno() == -1
        assert ours.recv(1) == b"", "nobody else has the other end"
