import av.error
import pytest

from services.common.errors import Unavailable
from services.inference.video.hardware import opened_encoders, told_clearly

no_card = pytest.mark.skipif(bool(opened_encoders()), reason="NVENC opens on this machine")


@no_card
def test_encoders_that_only_ffmpeg_has_are_not_named():
    assert {"h264_nvenc", "hevc_nvenc"} <= av.codecs_available
    assert opened_encoders() == []


def test_a_cards_encoder_that_fails_says_what_to_do():
    with pytest.raises(Unavailable, match=r"NVENC .* leave the encoder out"), told_clearly("h264_nvenc"):
        raise av.error.ExternalError(1, "Generic error in an external library")


def test_errors_of_other_encoders_are_left_alone():
    with pytest.raises(av.error.ExternalError), told_clearly("libx264"):
        raise av.error.ExternalError(1, "Generic error in an external library")
