import pytest

from services.common.encoders import ENCODERS, EVERYWHERE, HARDWARE_ENCODERS, SIDES, named_encoder, title_of
from services.common.pixels import PIXEL_FORMATS


def test_no_name_means_what_every_worker_has():
    assert named_encoder("") is named_encoder("x264") is next(iter(ENCODERS.values()))
    assert named_encoder("").names <= EVERYWHERE


def test_what_stands_behind_a_name_takes_pixels_and_has_a_title():
    taken = {encoder for form in PIXEL_FORMATS.values() for encoder in form.encoders}
    for named in ENCODERS.values():
        assert named.names <= taken
        assert {title_of(encoder) for encoder in named.names} == {named.title}
    assert set(HARDWARE_ENCODERS) == named_encoder("nvenc").names == SIDES.keys()


def test_an_unknown_name_stands_for_nothing():
    with pytest.raises(KeyError):
        named_encoder("av1")
