from dataclasses import replace

import pytest

from services.common.errors import InvalidOption
from services.gateway.room import check_room, padded_pixels, predicted_memory_bytes
from tests.unit.gateway.examples import OFFER

MODEL = replace(
    OFFER.model, size_multiple=16, max_output_pixels=3_000_000, memory_base_bytes=8_000_000_000, memory_bytes_per_pixel=18_000.0
)


def test_frames_are_counted_as_the_model_takes_them():
    assert padded_pixels(MODEL, 1920, 1080) == 1920 * 1088


def test_memory_grows_with_the_frame_as_far_as_the_device_goes():
    assert predicted_memory_bytes(MODEL, 1280, 720, 80_000_000_000) == 8_000_000_000 + 18_000 * 1280 * 720
    assert predicted_memory_bytes(MODEL, 1920, 1080, 40_000_000_000) == 40_000_000_000
    assert predicted_memory_bytes(MODEL, 1920, 1080, 0) > 45_000_000_000


def test_workers_that_do_not_say_promise_nothing():
    unknown = replace(MODEL, max_output_pixels=0, memory_base_bytes=0)
    assert predicted_memory_bytes(unknown, 1280, 720, 0) == 0
    check_room(unknown, 16000, 9000, 0)


def test_what_fits_passes_and_what_does_not_is_refused_with_the_numbers():
    check_room(MODEL, 1920, 1080, 80_000_000_000)
    with pytest.raises(InvalidOption) as caught:
        check_room(MODEL, 3840, 2160, 80_000_000_000)
    assert caught.value.field == "request.target"
    assert "3840×2160 pixels, which takes about 157 GB of memory" in caught.value.message
    assert "has 80 GB, enough for frames of 3.0 megapixels at most" in caught.value.message
