import pytest
import torch

from services.inference.gpu.model.windows import cut_grid, list_windows
from services.inference.gpu.parallel.mesh import Mesh
from services.inference.gpu.parallel.sequence import HeadExchange, WindowExchange, assign, divide, join_parts, own_part
from tests.unit.inference.gpu.ranks import SIZES, Ranks

TOKENS, WORDS, HEADS, HEAD = 11, 3, 12, 2
WIDTH = HEADS * HEAD


def numbered(rows: int, columns: int) -> torch.Tensor:
    return torch.arange(rows * columns, dtype=torch.float32).view(rows, columns)


@pytest.mark.parametrize(("total", "parts", "expected"), [(10, 4, [3, 3, 2, 2]), (2, 4, [1, 1, 0, 0]), (8, 4, [2, 2, 2, 2])])
def test_parts_are_nearly_equal_and_whole(total: int, parts: int, expected: list[int]) -> None:
    assert divide(total, parts) == expected


def test_large_jobs_are_dealt_out_first_so_that_loads_are_alike() -> None:
    costs = [1, 9, 2, 8, 3, 7]
    owners = assign(costs, 3)
    assert sorted(sum(cost for cost, owner in zip(costs, owners, strict=True) if owner == rank) for rank in range(3)) == [
        10,
        10,
        10,
    ]
    assert set(assign([5, 5], 4)) == {0, 1}


def test_a_3b_clip_of_720p_keeps_eight_ranks_equally_busy() -> None:
    for shifted in (False, True):
        costs = [window.tokens for window in list_windows(cut_grid((21, 45, 80), (4, 3, 3), shifted=shifted))]
        loads = [0] * 8
        for cost, owner in zip(costs, assign(costs, 8), strict=True):
            loads[owner] += cost
        assert max(loads) <= 1.15 * sum(costs) / 8


def parts_joined(mesh: Mesh) -> bool:
    x = numbered(TOKENS, 2)
    return join_parts(own_part(x, mesh), TOKENS, mesh).equal(x)


@pytest.mark.parametrize("size", SIZES)
def test_parts_joined_are_the_whole(ranks: Ranks, size: int) -> None:
    assert ranks.run(size, parts_joined) == [True] * size


def heads_exchanged(mesh: Mesh) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """What a rank attends with, and what comes back from an attention that gives its values; with text and without."""
    exchange = HeadExchange(mesh, TOKENS, HEADS)
    tokens, text = numbered(TOKENS + WORDS, 3 * WIDTH).split([TOKENS, WORDS])
    qkv = exchange.to_windows(torch.cat([own_part(tokens, mesh), text]))
    values = qkv.view(TOKENS + WORDS, 3, -1)[:, 2].contiguous()
    return qkv, exchange.to_tokens(values), exchange.to_tokens(values[:TOKENS])


@pytest.mark.parametrize("size", SIZES)
def test_heads_are_parts_of_queries_keys_and_values_over_all_tokens(ranks: Ranks, size: int) -> None:
    everything = numbered(TOKENS + WORDS, 3 * WIDTH)
    values = everything.view(-1, 3, WIDTH)[:, 2]
    for rank, (qkv, back, bare) in enumerate(ranks.run(size, heads_exchanged)):
        part = everything.view(-1, 3, size, WIDTH // size)[:, :, rank]
        assert qkv.equal(part.flatten(1))
        own = values[:TOKENS].split(divide(TOKENS, size))[rank]
        assert back.equal(torch.cat([own, values[TOKENS:]]))
        assert bare.equal(own)


OWNERS = torch.tensor([0, 1, 0, 0, 1, 1, 1, 0, 0, 0, 1])


def windows_exchanged(mesh: Mesh) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Ranks from 2 on have no window."""
    exchange = WindowExchange(mesh, OWNERS, HEADS, share=(0.75, 0.25, 0.0, 0.0)[mesh.rank])
    tokens, text = numbered(TOKENS + WORDS, 3 * WIDTH).split([TOKENS, WORDS])
    held = exchange.to_windows(torch.cat([own_part(tokens, mesh), text]))
    rows = held[:, :WIDTH].contiguous()
    rows[-WORDS:] = mesh.rank
    return held, exchange.to_tokens(rows), exchange.to_tokens(rows[:-WORDS])


@pytest.mark.parametrize("size", SIZES)
def test_windows_bring_whole_tokens_together_and_text_is_their_weighted_mean(ranks: Ranks, size: int) -> None:
    everything = numbered(TOKENS + WORDS, 3 * WIDTH)
    for rank, (held, back, bare) in enumerate(ranks.run(size, windows_exchanged)):
        assert held.equal(torch.cat([everything[:TOKENS][rank == OWNERS], everything[TOKENS:]]))
        own = everything[:TOKENS, :WIDTH].split(divide(TOKENS, size))[rank]
        assert back.equal(torch.cat([own, torch.full((WORDS, WIDTH), 0.25)]))
        assert bare.equal(own)


def test_one_rank_moves_nothing() -> None:
    exchange, x = HeadExchange(Mesh.solo(), TOKENS, HEADS), numbered(TOKENS, WIDTH)
    assert exchange.to_windows(x) is exchange.to_tokens(x) is x
    assert exchange.heads == HEADS
