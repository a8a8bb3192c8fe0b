import numpy as np
import pytest
import torch

from services.inference.gpu.model.frames import (
    crop,
    crop_to_multiple,
    mirror_append,
    mirror_prepend,
    mirror_to_valid,
    normalise,
    pad_black,
    pad_to_multiple,
    quantise,
    repeat_last,
    resize,
    to_unit,
)
from tests.unit.inference.gpu.goldens import CPU, table, tensors

RESIZE = tensors("pipeline/resize")
CASES = [case for case in table("pipeline/resize")["cases"] if f"{case['name']}.in_u8" in RESIZE]
PADDING = table("pipeline/temporal_padding")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_resizing_and_fitting_give_the_reference_values(case: dict[str, object]) -> None:
    name = case["name"]
    resized, out = RESIZE[f"{name}.resized"], RESIZE[f"{name}.out"]
    source = RESIZE[f"{name}.in_u8"].permute(0, 2, 3, 1).contiguous().numpy()
    ours = resize(to_unit(source, CPU), resized.shape[2], resized.shape[3])
    torch.testing.assert_close(ours, resized.clamp(0, 1), atol=1e-5, rtol=0)
    fitted = crop_to_multiple(ours, 16) if case["kind"] == "official_area" else pad_black(ours, 16)
    torch.testing.assert_close(normalise(fitted).transpose(0, 1), out, atol=1e-5, rtol=0)


def test_large_sources_are_reduced_with_antialiasing() -> None:
    for name in ("area_downonly_big", "side_downonly_big"):
        resized = RESIZE[f"{name}.resized"]
        ours = resize(RESIZE[f"{name}.in"], resized.shape[2], resized.shape[3])
        torch.testing.assert_close(ours, resized.clamp(0, 1), atol=1e-5, rtol=0)


def test_an_unchanged_size_leaves_the_values_alone() -> None:
    frames = torch.rand(1, 3, 20, 30)
    assert resize(frames, 20, 30) is frames


def test_padding_repeats_the_edge_and_cropping_undoes_it() -> None:
    frames = torch.rand(2, 3, 18, 33)
    padded = pad_to_multiple(frames, 16)
    assert padded.shape == (2, 3, 32, 48)
    assert padded[..., 18:, :33].equal(frames[..., 17:, :].expand(-1, -1, 14, -1))
    assert padded[..., :18, 33:].equal(frames[..., 32:].expand(-1, -1, -1, 15))
    assert crop(padded, 18, 33).equal(frames)


@pytest.mark.parametrize("entry", PADDING["official"], ids=lambda entry: f"{entry['t']} by {entry['sp']}")
def test_the_last_frame_is_repeated_as_the_released_scripts_do(entry: dict[str, object]) -> None:
    assert repeat_last(entry["t"], 4, entry["sp"]) == entry["frames"]  # type: ignore[arg-type]


@pytest.mark.parametrize("frames", range(1, 6))
def test_nothing_is_repeated_where_a_latent_codes_one_frame(frames: int) -> None:
    assert repeat_last(frames, 1) == list(range(frames))


def test_mirroring_is_that_of_the_port() -> None:
    assert all(mirror_to_valid(entry["t"]) == entry["frames"] for entry in PADDING["port_auto"])
    assert all(mirror_append(entry["t"], entry["count"]) == entry["frames"] for entry in PADDING["port_count"])
    assert all(mirror_prepend(entry["t"], entry["count"]) == entry["frames"] for entry in PADDING["port_prepend"])


def test_quantising_rounds_as_the_released_scripts_do() -> None:
    golden = tensors("pipeline/quantise")
    assert np.array_equal(quantise(golden["decoded"], 8), golden["official_u8"].numpy())


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_whole_numbers_survive_the_way_to_the_model_and_back(dtype: type) -> None:
    top = np.iinfo(dtype).max
    frames = np.linspace(0, top, 2 * 16 * 16 * 3, dtype=dtype).reshape(2, 16, 16, 3)
    back = quantise(normalise(to_unit(frames, CPU)), np.iinfo(dtype).bits)
    assert back.dtype == dtype
    assert np.array_equal(back, frames)
