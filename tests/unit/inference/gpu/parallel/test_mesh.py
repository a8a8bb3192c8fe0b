import pytest
import torch
from torch import Tensor

from services.common.errors import SettingsError, WorkerBroken
from services.inference.gpu.parallel.mesh import Mesh
from tests.unit.inference.gpu.ranks import SIZES, Ranks

CPU = torch.device("cpu")
TYPES = (torch.float32, torch.bfloat16, torch.float16, torch.float64)


def gathered(mesh: Mesh) -> list[list[float]]:
    """As many columns as the rank's number, of it."""
    return [mesh.all_gather(torch.full((2, mesh.rank), mesh.rank, dtype=kind), range(mesh.size), 1).tolist() for kind in TYPES]


@pytest.mark.parametrize("size", SIZES)
def test_uneven_pieces_are_joined_in_the_order_of_ranks(ranks: Ranks, size: int) -> None:
    row = [float(rank) for rank in range(size) for _ in range(rank)]
    assert ranks.run(size, gathered) == [[[row, row]] * len(TYPES)] * size


def traded(mesh: Mesh) -> list[Tensor]:
    """Rank a has (a + b) % 3 rows for rank b, with the number 10 · a + b."""
    counts = [(mesh.rank + other) % 3 for other in range(mesh.size)]
    rows = [torch.full((count, 2), 10 * mesh.rank + other) for other, count in enumerate(counts)]
    results = []
    for kind in TYPES:
        given = torch.cat(rows).to(kind)
        into = torch.full((sum(counts) + 1, 2), -1, dtype=kind)
        assert mesh.all_to_all(given, counts, counts).equal(mesh.all_to_all(given, counts, counts, out=into[:-1]))
        assert into[-1].tolist() == [-1, -1]
        results.append(into[:-1, 1])
    return results


@pytest.mark.parametrize("size", SIZES)
def test_every_rank_gets_the_rows_that_are_for_it(ranks: Ranks, size: int) -> None:
    for rank, results in enumerate(ranks.run(size, traded)):
        expected = [10.0 * other + rank for other in range(size) for _ in range((rank + other) % 3)]
        assert [result.tolist() for result in results] == [expected] * len(TYPES)


def neighbours(mesh: Mesh) -> list[object]:
    up, down = torch.tensor([mesh.rank + 10]), torch.tensor([mesh.rank + 20])
    return [None if x is None else x.item() for x in (*mesh.exchange(up, down), *mesh.exchange(up, None))]


def test_neighbours_exchange_what_is_for_each_other(ranks: Ranks) -> None:
    assert ranks.run(3, neighbours) == [[None, 11, None, 11], [20, 12, None, 12], [21, None, None, None]]


def summed(mesh: Mesh) -> tuple[list[float], list[float], dict[str, int]]:
    total = mesh.all_reduce(torch.tensor([1.0, mesh.rank]))
    return total.tolist(), mesh.broadcast(torch.tensor([float(mesh.rank)]), mesh.size - 1).tolist(), dict(mesh.sent_bytes)


def test_sums_and_broadcasts_reach_everybody_and_bytes_are_counted(ranks: Ranks) -> None:
    sent = [{"all_reduce": 10, "broadcast": 0}] * 2 + [{"all_reduce": 10, "broadcast": 8}]
    assert ranks.run(3, summed) == [([3.0, 3.0], [2.0], bytes_sent) for bytes_sent in sent]


def test_one_rank_gives_back_what_it_gets() -> None:
    mesh, x = Mesh.solo(), torch.randn(3, 2)
    assert mesh.broadcast(x) is mesh.all_reduce(x) is mesh.all_gather(x, [3]) is mesh.all_to_all(x, [3], [3]) is x
    assert mesh.exchange(x, x) == (None, None)
    assert mesh.all_to_all(x, [3], [3], out=torch.empty(3, 2)).equal(x)
    mesh.close()
    assert not mesh.sent_bytes


def test_a_group_that_does_not_fit_the_machine_is_refused_in_words() -> None:
    with pytest.raises(SettingsError, match="no backend 'mpi'"):
        Mesh.join(0, 2, device=CPU, init_method="file:///nowhere", backend="mpi")
    with pytest.raises(SettingsError, match=r"nccl"):
        Mesh.join(0, 2, device=CPU, init_method="file:///nowhere", backend="nccl")


def test_a_rank_that_nobody_joins_does_not_wait_for_ever(tmp_path) -> None:
    with pytest.raises(WorkerBroken, match="did not meet the other 1 within 1 s"):
        Mesh.join(0, 2, device=CPU, init_method=f"file://{tmp_path}/meeting", timeout_s=1)


def leave_early(mesh: Mesh) -> str:
    if mesh.rank:
        mesh.close()
        return "left"
    try:
        mesh.all_reduce(torch.ones(1))
    except WorkerBroken as error:
        return error.message
    return "nothing noticed"


def test_a_rank_that_leaves_is_missed_by_the_others(ranks: Ranks) -> None:
    lost = "The group of ranks is broken: rank 0 of 2 lost the others."
    assert ranks.run(2, leave_early) == [lost, "left"]
