from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from bench.seam_picture import Curve, draw
from bench.seams import Found, Way, _measure, _numbers


def _found(errors: list[float]) -> Found:
    return Found(errors=np.array(errors), blocks=np.zeros(len(errors)), psnr_db=30.0)


@pytest.mark.parametrize(
    ("way", "borders"),
    [
        (Way(window=8, shared=0), [(8, 9), (16, 17)]),
        (Way(window=8, shared=2), [(6, 9), (12, 15)]),
        (Way(window=0, shared=0), []),
        (Way(span=10), [(10, 11)]),
    ],
)
def test_a_border_is_where_two_parts_meet(way: Way, borders: list[tuple[int, int]]):
    assert way.borders(20) == borders


def test_change_that_is_in_the_film_is_no_error_and_other_change_is():
    truth = np.broadcast_to(np.arange(0, 60, 10, np.uint8)[:, None, None, None], (6, 112, 192, 3))
    jumping = truth.copy()
    jumping[3:] += 4
    assert _measure(truth, truth).errors == pytest.approx(np.zeros(5))
    assert _measure(truth + np.uint8(9), truth).errors == pytest.approx(np.zeros(5), abs=1e-9)
    found = _measure(jumping, truth)
    assert found.errors == pytest.approx([0, 0, 4, 0, 0], abs=1e-9)
    assert found.blocks == pytest.approx([0, 0, 4, 0, 0], abs=1e-9)


def test_a_jump_at_a_border_is_its_excess_and_changes_no_other_number():
    whole, jump = _found([1.0] * 19), _found([1.0] * 9 + [3.0] + [1.0] * 9)
    assert _numbers(Way(span=10), jump, whole)[:3] == pytest.approx([1.0, 2.0, 0.0])


def test_a_picture_has_a_panel_for_each_title(tmp_path: Path):
    curve = Curve("a", np.array([0.0, 0.2, 0.1]), [(2, 3)])
    draw(tmp_path / "deep" / "p.png", [("one", [curve]), ("two", [curve, curve])])
    with Image.open(tmp_path / "deep" / "p.png") as picture:
        assert picture.size == (1000, 600)
