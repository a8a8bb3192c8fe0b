from itertools import pairwise

import pytest
import torch

from services.inference.gpu.model.windows import Grid, WindowLayout, cut_grid, list_windows, window_size
from tests.unit.inference.gpu.goldens import CPU, table

COUNTS = (4, 3, 3)


@pytest.mark.parametrize("entry", table("dit/windows"), ids=lambda entry: "x".join(map(str, entry["grid"])))
def test_windows_are_those_of_the_reference(entry: dict[str, list[list[int]]]) -> None:
    time, height, width = entry["grid"]
    grid: Grid = (time, height, width)  # type: ignore[assignment]
    assert list(window_size(grid, COUNTS)) == entry["window"]
    for method, shifted in (("regular", False), ("shifted", True)):
        windows = list_windows(cut_grid(grid, COUNTS, shifted=shifted))
        assert [[*w.time, *w.height, *w.width] for w in windows] == entry[method]


@pytest.mark.parametrize("shifted", [False, True])
def test_packing_brings_each_windows_tokens_together_and_unpacking_undoes_it(shifted: bool) -> None:
    grid, text_tokens = (5, 21, 23), 6
    cuts = cut_grid(grid, COUNTS, shifted=shifted)
    layout = WindowLayout(grid, list_windows(cuts), text_tokens, CPU)
    video, text = torch.arange(5 * 21 * 23.0), -1 - torch.arange(6.0)
    packed = layout.pack(video, text)
    first, seen = 0, set()
    for run in layout.packing.runs:
        for rows in packed[first : first + run.problems * run.length].view(*run):
            assert rows[-text_tokens:].equal(text)
            seen.add(tuple(rows[:-text_tokens].int().tolist()))
        first += run.problems * run.length
    tokens = video.view(grid).int()
    expected = {tuple(tokens[slice(*t), slice(*h), slice(*w)].flatten().tolist()) for t, h, w in list_windows(cuts)}
    assert seen == expected
    assert layout.unpack(packed).equal(torch.cat([video, text]))
    assert layout.unpack(packed, text=False).equal(video)


def test_the_text_result_is_the_plain_mean_over_windows() -> None:
    grid = (1, 10, 100)
    layout = WindowLayout(grid, list_windows(cut_grid(grid, COUNTS, shifted=True)), 2, CPU)
    packed = torch.zeros(layout.rows, 1)
    packed[layout.text] = torch.arange(2.0 * layout.windows)[:, None]
    expected = torch.arange(2.0 * layout.windows).view(layout.windows, 2, 1).mean(0)
    torch.testing.assert_close(layout.unpack(packed)[-2:], expected)


def test_borders_count_up_the_rows_of_every_window() -> None:
    grid = (3, 8, 10)
    layout = WindowLayout(grid, list_windows(cut_grid(grid, COUNTS, shifted=False)), 5, CPU)
    borders = layout.packing.borders.tolist()
    assert borders[0] == 0
    assert borders[-1] == layout.rows
    assert len(borders) == layout.windows + 1
    assert max(b - a for a, b in pairwise(borders)) == layout.packing.longest
