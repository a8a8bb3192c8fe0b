import pytest

from services.common.pixels import NVENC_H264, NVENC_HEVC, PICTURE_ENCODER, PIXEL_FORMATS, VIDEO_ENCODER, pixel_format


@pytest.mark.parametrize(
    ("encoder", "deep", "alpha", "name"),
    [
        (VIDEO_ENCODER, False, False, "yuv420p"),
        (VIDEO_ENCODER, True, False, "yuv420p10le"),
        (NVENC_H264, False, False, "yuv420p"),
        (NVENC_HEVC, True, False, "p010le"),
        (PICTURE_ENCODER, False, True, "rgba"),
        (PICTURE_ENCODER, True, True, "rgba64be"),
    ],
)
def test_a_format_is_found_by_what_it_holds(encoder: str, deep: bool, alpha: bool, name: str):
    assert pixel_format(encoder, deep=deep, alpha=alpha) == name
    assert PIXEL_FORMATS[name].channels == (4 if alpha else 3)
