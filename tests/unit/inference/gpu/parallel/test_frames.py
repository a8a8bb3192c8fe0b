import pytest
import torch
from torch import Tensor

from services.inference.gpu.parallel.frames import RowShare, unite
from services.inference.gpu.parallel.mesh import Mesh
from tests.unit.inference.gpu.ranks import SIZES, Ranks

HEIGHT, FACTOR = 22, 2


def frames() -> Tensor:
    return torch.randn((2, 3, HEIGHT, 4), generator=torch.Generator().manual_seed(0))


def surrounded(mesh: Mesh) -> tuple[tuple[int, ...], Tensor, Tensor]:
    """Own rows with those around, and with the one below; the spare ones hold 7 before."""
    share = RowShare.of(HEIGHT, FACTOR, mesh)
    own = share.own(frames(), FACTOR).permute(0, 2, 3, 1)
    assert share.join(own.permute(0, 3, 1, 2), FACTOR).equal(frames())
    around, below = (torch.full((2, own.shape[1] + spare, 4, 3), 7.0) for spare in (2, 1))
    around[:, 1:-1] = below[:, :-1] = own
    share.fill_around(around)
    share.fill_below(below)
    return share.rows, around, below


@pytest.mark.parametrize("size", SIZES)
def test_spare_rows_are_those_of_the_neighbours_and_zeros_around_the_frame(ranks: Ranks, size: int) -> None:
    padded = torch.nn.functional.pad(frames(), (0, 0, 1, 1)).permute(0, 2, 3, 1)
    first = 0
    for rank, (rows, around, below) in enumerate(ranks.run(size, surrounded)):
        end = first + rows[rank] * FACTOR
        assert around.equal(padded[:, first : end + 2])
        assert below[:, :-1].equal(padded[:, first + 1 : end + 1])
        assert (below[:, -1] == 7).all() if rank == size - 1 else below[:, -1].equal(padded[:, end + 1])
        first = end
    assert first == HEIGHT


def test_spare_rows_can_be_copied_alone() -> None:
    share, source, target = RowShare.of(12, 1, Mesh(1, 3, torch.device("cpu"))), torch.ones(2, 6, 4, 3), torch.zeros(2, 6, 4, 3)
    share.copy_spare(source, target)
    assert target.sum((0, 2, 3)).tolist() == [24, 0, 0, 0, 0, 24]
    assert not share.inner(target).any()


def moments(mesh: Mesh) -> tuple[Tensor, Tensor]:
    share = RowShare.of(HEIGHT, FACTOR, mesh)
    own = share.own(frames() + 100, FACTOR)
    return share.unite(own.mean((2, 3)), own.var((2, 3), correction=0))


@pytest.mark.parametrize("size", SIZES)
def test_statistics_are_those_of_whole_frames(ranks: Ranks, size: int) -> None:
    for mean, variance in ranks.run(size, moments):
        torch.testing.assert_close(mean, frames().mean((2, 3)) + 100)
        torch.testing.assert_close(variance, frames().var((2, 3), correction=0), rtol=1e-4, atol=0)


def test_parts_weigh_by_their_size() -> None:
    x = torch.tensor([0.0, 0.0, 0.0, 4.0])
    parts = torch.stack([torch.tensor([part.mean(), part.var(correction=0)]).view(2, 1, 1) for part in (x[:3], x[3:])])
    mean, variance = unite(parts, torch.tensor([0.75, 0.25]))
    assert mean.item() == x.mean()
    assert variance.item() == x.var(correction=0)


@pytest.mark.parametrize(("height", "factor"), [(14, 2), (15, 2), (7, 1)])
def test_few_or_broken_rows_are_not_divided(height: int, factor: int) -> None:
    share = RowShare.of(height, factor, Mesh(1, 4, torch.device("cpu")))
    assert share.mesh.size == 1
    assert share.spare == 0
    x = torch.zeros(1, 1, height, 1)
    assert share.own(x, factor) is share.join(x, factor) is x
    assert share.unite(x, x) == (x, x)


def test_only_the_outer_ranks_are_at_a_border() -> None:
    shares = [RowShare.of(12, 1, Mesh(rank, 3, torch.device("cpu"))) for rank in range(3)]
    assert [(share.at_border(bottom=False), share.at_border(bottom=True)) for share in shares] == [
        (True, False),
        (False, False),
        (False, True),
    ]
