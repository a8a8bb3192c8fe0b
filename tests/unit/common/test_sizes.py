import json
import math
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import InvalidOption
from services.common.sizes import OutputSize, Target, area_rule, output_size, round_down, round_up, short_side_rule

TABLES = json.loads((Path(__file__).parents[2] / "goldens" / "pipeline" / "resize.json").read_text())


def _size(height_and_width: list[int]) -> OutputSize:
    return OutputSize(height_and_width[1], height_and_width[0])


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        ((640, 360), None, (640, 360)),
        ((641, 359), None, (642, 360)),
        ((640, 360), Target(scale=2), (1280, 720)),
        ((640, 360), Target(scale=1.5), (960, 540)),
        ((355, 201), Target(scale=2), (710, 402)),
        ((640, 360), Target(short_side=1080), (1920, 1080)),
        ((360, 640), Target(short_side=1080), (1080, 1920)),
        ((720, 576), Target(short_side=720), (900, 720)),
        ((640, 360), Target(width=1920, height=1920), (1920, 1080)),
        ((360, 640), Target(width=1920, height=1080), (608, 1080)),
        ((640, 360), Target(width=333, height=333), (332, 188)),
    ],
)
def test_each_target_has_its_size(source: tuple[int, int], target: Target | None, expected: tuple[int, int]) -> None:
    assert output_size(*source, target) == expected


@pytest.mark.parametrize(
    ("pixel_aspect", "expected"),
    [
        (Fraction(1), (720, 480)),
        (Fraction(8, 9), (720, 540)),
        (Fraction(32, 27), (854, 480)),
        (Fraction(0), (720, 480)),
        (Fraction(-1), (720, 480)),
    ],
)
def test_pixels_become_square_without_losing_any(pixel_aspect: Fraction, expected: tuple[int, int]) -> None:
    assert output_size(720, 480, pixel_aspect=pixel_aspect) == expected


def test_a_box_is_never_left() -> None:
    for width in range(101, 160, 7):
        for height in range(61, 140, 9):
            for box in (97, 98, 255):
                size = output_size(width, height, Target(width=box, height=box))
                assert max(size) <= box
                assert size.width % 2 == size.height % 2 == 0


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({}, "target"),
        ({"scale": 2.0, "short_side": 720}, "target"),
        ({"short_side": 720, "width": 100, "height": 100}, "target"),
        ({"width": 1920}, "target.box"),
        ({"height": 1080}, "target.box"),
        ({"scale": 0.0}, "target.scale"),
        ({"scale": -1.0}, "target.scale"),
        ({"scale": math.nan}, "target.scale"),
        ({"scale": math.inf}, "target.scale"),
        ({"scale": 1000.0}, "target.scale"),
        ({"short_side": 0}, "target.short_side"),
        ({"short_side": -720}, "target.short_side"),
        ({"short_side": 10**9}, "target.short_side"),
        ({"width": 1920, "height": 2}, "target.box.height"),
        ({"width": 10**6, "height": 1080}, "target.box.width"),
    ],
)
def test_absurd_targets_are_refused_by_field(options: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidOption) as refusal:
        Target(**options)
    assert refusal.value.field == field


@pytest.mark.parametrize(
    ("source", "target"),
    [((640, 360), Target(scale=64)), ((100, 20), Target(scale=0.25)), ((8, 8), None), ((16000, 20), Target(short_side=720))],
)
def test_results_too_small_or_too_large_are_refused(source: tuple[int, int], target: Target | None) -> None:
    with pytest.raises(InvalidOption, match="the result would be"):
        output_size(*source, target)


@pytest.mark.parametrize("row", TABLES["area_table"], ids=lambda row: f"{row['size']} to {row['res']}")
def test_the_area_rule_is_that_of_the_released_scripts(row: dict[str, Any]) -> None:
    size = area_rule(row["size"][1], row["size"][0], row["res"][0] * row["res"][1])
    assert size == _size(row["resized"])
    assert round_down(size, 16) == _size(row["cropped"])


@pytest.mark.parametrize("row", TABLES["side_table"], ids=lambda row: f"{row['size']} to {row['resolution']}")
def test_the_short_side_rule_is_that_of_the_port(row: dict[str, Any]) -> None:
    size = short_side_rule(row["size"][1], row["size"][0], row["resolution"], row["max_resolution"])
    assert round_down(size, 2) == _size(row["true"])
    assert round_up(size, 16) == _size(row["padded"])
