import pytest
import torch
from torch import Tensor

from services.common.errors import InvalidOption
from services.inference.gpu.model.tiling import Span, TiledVae, Tiling, TilingState, blend, cut
from services.inference.gpu.model.vae import VaeState
from tests.unit.inference.gpu.goldens import nano, table, tensors, tiny_vae

CASES = pytest.mark.parametrize("case", table("vae/tiling"), ids=lambda case: case["name"])
CLOSE = {"atol": 5e-5, "rtol": 0}


def _tiled(case: dict[str, list[int]]) -> TiledVae:
    axes = (Tiling(size=size, overlap=overlap) for size, overlap in zip(case["tile_size"], case["tile_overlap"], strict=True))
    return TiledVae(tiny_vae(), *axes)


def _frames_first(x: Tensor) -> Tensor:
    return x[0].transpose(0, 1)


@CASES
@pytest.mark.parametrize("frames_a_slice", [4, 8])
def test_moments_of_tiles_are_those_of_the_reference(case: dict[str, list[int]], frames_a_slice: int) -> None:
    golden, tiled, state = tensors("vae/tiling"), _tiled(case), TilingState()
    frames = _frames_first(golden[f"{case['name']}.x"])
    parts = [frames[:1], *frames[1:].split(frames_a_slice)] if len(frames) > 1 else [frames]
    moments = torch.cat([tiled.moments(part, state) for part in parts])
    torch.testing.assert_close(moments, _frames_first(golden[f"{case['name']}.moments_tiled"]), **CLOSE)


@CASES
@pytest.mark.parametrize("latents_a_slice", [1, 2])
def test_frames_of_tiles_are_those_of_the_reference(case: dict[str, list[int]], latents_a_slice: int) -> None:
    golden, tiled, state = tensors("vae/tiling"), _tiled(case), TilingState()
    latents = _frames_first(golden[f"{case['name']}.z"]).permute(0, 2, 3, 1) * tiny_vae().spec.scaling_factor
    frames = torch.cat([tiled.decode(part, state) for part in latents.split(latents_a_slice)])
    torch.testing.assert_close(frames, _frames_first(golden[f"{case['name']}.y_tiled"]), **CLOSE)


def test_a_frame_that_fits_one_tile_is_not_changed_by_tiling() -> None:
    vae, axis = nano().vae, Tiling(size=64, overlap=16)
    tiled, frames = TiledVae(vae, axis, axis), torch.rand(3, 3, 64, 48) * 2 - 1
    latents = vae.encode(frames, VaeState())
    assert tiled.encode(frames, TilingState()).equal(latents)
    assert tiled.decode(latents, TilingState()).equal(vae.decode(latents, VaeState()))


def test_each_tile_goes_on_where_it_was() -> None:
    axis, state = Tiling(size=32, overlap=8), TilingState()
    tiled = TiledVae(nano().vae, axis, axis)
    for _ in range(3):
        tiled.encode(torch.rand(2, 3, 48, 64), state)
    assert len(state.of) == 6
    assert all(stream.started for stream in state.of.values())


@pytest.mark.parametrize(
    ("length", "size", "overlap", "spans"),
    [
        (4, 32, 8, [(0, 4)]),
        (9, 32, 16, [(0, 4), (2, 6), (4, 8), (6, 9)]),
        (8, 32, 16, [(0, 4), (2, 6), (4, 8)]),
        (6, 16, 0, [(0, 2), (2, 4), (4, 6)]),
        (5, 24, 24, [(0, 3), (1, 4), (2, 5)]),
        (2, 3, 0, [(0, 1), (1, 2)]),
    ],
)
def test_tiles_cover_an_axis_and_none_lies_within_its_predecessor(
    length: int, size: int, overlap: int, spans: list[Span]
) -> None:
    assert cut(length, Tiling(size=size, overlap=overlap), 8) == spans


def test_blending_equal_pictures_gives_the_picture() -> None:
    picture = torch.rand(2, 3, 40, 56)
    rows, columns = (cut(side, Tiling(size=24, overlap=8), 8) for side in (5, 7))
    tiles = [(row, column) for row in rows for column in columns]
    parts = [picture[..., row.in_pixels(8), column.in_pixels(8)] for row, column in tiles]
    torch.testing.assert_close(blend(tiles, parts, (8, 8), factor=8), picture)


def test_half_precision_tiles_are_summed_in_full_precision() -> None:
    tiles = [(Span(0, 1), Span(first, first + 8)) for first in range(0, 64, 2) if first + 8 <= 64]
    parts = [torch.full((1, 1, 1, 8), 1.0, dtype=torch.bfloat16) for _ in tiles]
    blended = blend(tiles, parts, (0, 6), factor=1)
    assert blended.dtype == torch.bfloat16
    assert blended.eq(1).all()


@pytest.mark.parametrize(("size", "overlap"), [(0, 0), (64, -1)])
def test_tiles_without_pixels_are_refused(size: int, overlap: int) -> None:
    with pytest.raises(InvalidOption, match="tiles of"):
        Tiling(size=size, overlap=overlap)
