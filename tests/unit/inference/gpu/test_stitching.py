from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from services.inference.gpu.stitching import LatentWindows, later_weights


def _latents(count: int) -> Tensor:
    """Latent i is filled with i."""
    return torch.arange(count, dtype=torch.float32).view(-1, 1, 1, 1).expand(-1, 2, 2, 3).clone()


def _windows(stream: LatentWindows, count: int, step: int) -> Iterator[tuple[int, Tensor]]:
    """The windows of a stream of ``count`` latents that come ``step`` at a time, at most."""
    latents = _latents(count)
    while len(latents):
        taken = min(step, stream.room)
        stream.add(latents[:taken])
        latents = latents[taken:]
        if not stream.room:
            yield stream.take()
    if stream.pending:
        yield stream.take()


def _covers(count: int, length: int, shared: int, step: int = 1) -> list[tuple[int, int]]:
    found = []
    for first, window in _windows(stream := LatentWindows(length, shared), count, step):
        assert torch.equal(window, _latents(count)[first : first + len(window)])
        found.append((first, first + len(window)))
        stream.join(first, window)
    return found


@pytest.mark.parametrize(
    ("count", "windows"),
    [
        (1, [(0, 1)]),
        (5, [(0, 5)]),
        (6, [(0, 6)]),
        (7, [(0, 6), (1, 7)]),
        (10, [(0, 6), (4, 10)]),
        (11, [(0, 6), (4, 10), (5, 11)]),
        (14, [(0, 6), (4, 10), (8, 14)]),
    ],
)
def test_windows_are_full_and_the_last_one_begins_earlier(count: int, windows: list[tuple[int, int]]):
    assert _covers(count, 6, 2) == windows


@pytest.mark.parametrize("shared", [0, 1, 2, 3])
def test_how_latents_arrive_changes_no_window(shared: int):
    for count in range(1, 30):
        assert len({tuple(_covers(count, 6, shared, step)) for step in (1, 2, 4, 100)}) == 1


@pytest.mark.parametrize("shared", [0, 1, 2, 3])
@pytest.mark.parametrize("count", range(1, 25))
def test_every_latent_comes_back_once_and_in_order(count: int, shared: int):
    stream = LatentWindows(6, shared)
    back = [stream.join(first, window) for first, window in _windows(stream, count, 2)]
    rest = stream.rest()
    assert torch.equal(torch.cat(back if rest is None else [*back, rest]), _latents(count))


def test_shared_latents_go_over_from_the_earlier_window_to_the_later_one():
    stream = LatentWindows(6, 2)
    back = [stream.join(first, torch.full_like(window, k)) for k, (first, window) in enumerate(_windows(stream, 11, 1))]
    rest = stream.rest()
    assert rest is not None
    joined = torch.cat([*back, rest])[:, 0, 0, 0]
    expected = torch.tensor([0, 0, 0, 0, 0.25, 0.75, 1, 1, 1.25, 1.75, 2])
    assert torch.allclose(joined, expected, atol=1e-6)


@pytest.mark.parametrize(("shared", "weights"), [(0, []), (1, [0.5]), (2, [0.25, 0.75])])
def test_the_later_window_gains_weight_evenly_on_both_sides(shared: int, weights: list[float]):
    assert torch.allclose(later_weights(shared), torch.tensor(weights), atol=1e-6)


def test_no_more_than_a_window_is_held():
    stream, held = LatentWindows(6, 2), []
    for first, window in _windows(stream, 200, 1):
        stream.join(first, window)
        held.append(sum(len(value) for value in vars(stream).values() if isinstance(value, Tensor)))
    assert max(held) <= 6 + 2


@pytest.mark.parametrize(("length", "shared"), [(0, 0), (6, 4), (6, -1), (1, 1)])
def test_windows_that_cannot_be_are_refused(length: int, shared: int):
    with pytest.raises(ValueError, match="latents can't share"):
        LatentWindows(length, shared)


def test_misuse_is_refused():
    stream = LatentWindows(4, 1)
    with pytest.raises(ValueError, match="no latent"):
        stream.take()
    with pytest.raises(ValueError, match="come where 4 fit"):
        stream.add(_latents(5))
