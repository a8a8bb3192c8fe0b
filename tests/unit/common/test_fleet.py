import pytest

from services.common.fleet import has_encoder


@pytest.mark.parametrize(
    ("encoders", "wanted", "has"),
    [
        ((), {"libx264"}, True),
        ((), {"png"}, True),
        ((), {"h264_nvenc", "hevc_nvenc"}, False),
        (("h264_nvenc",), {"h264_nvenc", "hevc_nvenc"}, True),
        (("h264_nvenc",), {"hevc_nvenc"}, False),
    ],
)
def test_what_a_worker_does_not_name_it_lacks_but_for_what_all_have(encoders: tuple[str, ...], wanted: set[str], has: bool):
    assert has_encoder(encoders, wanted) is has
