from collections.abc import Iterator

import av
import pytest
from av.video.codeccontext import VideoCodecContext

from services.gateway.encoding import PRESETS, encoder_options
from services.inference.admission import ENCODER_OPTIONS


def option_table(encoder: str) -> dict[str, set[str]]:
    """Names of an encoder's options, with the names of their choices; private ones win."""
    context = av.CodecContext.create(encoder, "w")
    assert isinstance(context, VideoCodecContext)
    found = context.supported_options

    def rows() -> Iterator[tuple[str, set[str]]]:
        for option in (*found.generic, *found.private):
            yield option.name, {choice.name for choice in option.choices}

    return dict(rows())


def test_x264_gets_rate_factor_and_preset():
    assert encoder_options("libx264", 20, "slow") == (("crf", "20"), ("preset", "slow"))


@pytest.mark.parametrize(("encoder", "profile"), [("h264_nvenc", "high"), ("hevc_nvenc", "main10")])
def test_nvenc_gets_constant_quality_and_no_frames_that_wait_for_later_ones(encoder: str, profile: str):
    options = dict(encoder_options(encoder, 14, "fast"))
    assert (options["rc"], options["cq"], options["bf"], options["preset"]) == ("vbr", "14", "0", "p4")
    assert options["profile"] == profile


def test_the_best_quality_is_not_the_drivers_choice():
    assert dict(encoder_options("h264_nvenc", 0, "fast"))["cq"] == "1"


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("encoder", ["h264_nvenc", "hevc_nvenc"])
def test_nvenc_knows_every_option_and_choice(encoder: str, preset: str):
    table = option_table(encoder)
    for name, value in encoder_options(encoder, 51, preset):
        assert name in table
        assert value.isdigit() or value in table[name]


@pytest.mark.parametrize("encoder", ["libx264", "h264_nvenc", "hevc_nvenc", "png"])
def test_workers_let_these_options_be_set(encoder: str):
    options = encoder_options(encoder, 14, "fast")
    assert {name for name, _ in options} <= ENCODER_OPTIONS[encoder]
    assert list(options) == sorted(options)
