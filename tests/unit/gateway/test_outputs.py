from fractions import Fraction
from typing import Any

import pytest

from services.common.errors import InvalidOption
from services.common.formats import PICTURES
from services.gateway.outputs import choose_output, kept
from services.gateway.source import ARCHIVE, OtherStream
from tests.unit.gateway.examples import info

AAC = OtherStream(index=1, kind="audio", codec="aac")
PCM = OtherStream(index=1, kind="audio", codec="pcm_s16le")
SUBRIP = OtherStream(index=2, kind="subtitle", codec="subrip")
MOV_TEXT = OtherStream(index=2, kind="subtitle", codec="mov_text")
TIMECODE = OtherStream(index=3, kind="data", codec="")
FONT = OtherStream(index=4, kind="attachment", codec="ttf")


@pytest.mark.parametrize(
    ("wanted", "others", "container", "lost"),
    [
        ("", (AAC,), "mp4", 0),
        ("", (AAC, MOV_TEXT), "mp4", 0),
        ("", (AAC, SUBRIP), "mkv", 0),
        ("", (PCM,), "mkv", 0),
        ("mkv", (AAC,), "mkv", 0),
        ("", (AAC, TIMECODE, FONT), "mp4", 2),
        ("", (PCM, MOV_TEXT, FONT), "mkv", 1),
    ],
)
def test_the_container_is_one_that_holds_the_streams(wanted: str, others: tuple, container: str, lost: int):
    output = choose_output(wanted, info(others=others), 50)
    assert (output.container, len(output.warnings)) == (container, lost)
    assert sum(not kept(s, output.container) for s in others) == lost


@pytest.mark.parametrize(("wanted", "others"), [("mp4", (PCM,)), ("mkv", (AAC, MOV_TEXT))])
def test_a_container_that_can_not_hold_the_streams_is_refused(wanted: str, others: tuple):
    with pytest.raises(InvalidOption, match="can't hold the source's") as error:
        choose_output(wanted, info(others=others), 50)
    assert error.value.field == "request.container"


def test_an_mkv_says_that_it_rounds():
    output = choose_output("mkv", info(time_base=Fraction(1, 12800)), 50)
    assert "rounded to milliseconds" in output.warnings[0]


@pytest.mark.parametrize(
    ("source", "frames", "container"),
    [
        ({"container": "png_pipe", "image": True}, 1, "png"),
        ({"container": "jpeg_pipe", "image": True}, 1, "jpg"),
        ({"container": "webp_pipe", "image": True}, 1, "webp"),
        ({"container": "tiff_pipe", "image": True}, 1, "tiff"),
        ({"container": "bmp_pipe", "image": True}, 1, "png"),
        ({"container": "jpeg_pipe", "image": True}, 9, "mp4"),
        ({"container": ARCHIVE}, 9, "zip"),
        ({"container": ARCHIVE}, 1, "zip"),
        ({}, 1, "mp4"),
    ],
)
def test_what_nobody_chose_is_of_the_sources_kind(source: dict[str, Any], frames: int, container: str):
    assert choose_output("", info(**source), frames).container == container


@pytest.mark.parametrize(
    ("wanted", "bits", "alpha", "pixel_format", "warnings"),
    [
        ("png", 8, False, "rgb24", 0),
        ("png", 16, True, "rgba64be", 0),
        ("tiff", 16, False, "rgb48be", 0),
        ("zip", 10, False, "rgb48be", 0),
        ("webp", 16, True, "rgba", 1),
        ("jpg", 16, True, "rgb24", 2),
        ("mp4", 8, True, "yuv420p", 1),
        ("mp4", 16, False, "yuv420p10le", 1),
    ],
)
def test_depth_and_transparency_are_kept_where_the_form_has_them(
    wanted: str, bits: int, alpha: bool, pixel_format: str, warnings: int
):
    output = choose_output(wanted, info(bits=bits, alpha=alpha), 1)
    assert (output.pixel_format, len(output.warnings)) == (pixel_format, warnings)


@pytest.mark.parametrize("wanted", PICTURES)
def test_many_frames_are_no_picture(wanted: str):
    with pytest.raises(InvalidOption, match="holds one picture") as error:
        choose_output(wanted, info(), 2)
    assert error.value.field == "request.container"


@pytest.mark.parametrize("encoder", ["x264", "nvenc"])
def test_pictures_have_no_encoder_of_videos(encoder: str):
    with pytest.raises(InvalidOption, match="leave the encoder out") as error:
        choose_output("png", info(), 1, encoder)
    assert error.value.field == "request.encoder"


def test_pictures_say_that_sound_is_lost():
    assert choose_output("zip", info(others=(AAC,)), 9).warnings == ("The audio is not kept: pictures have none.",)


def test_frames_without_loss_make_short_segments_where_they_are_large():
    output = choose_output("zip", info(), 9)
    assert output.segment_frames(640, 360, 48) == 48
    assert output.segment_frames(3840, 2160, 48) == 2
    assert output.segment_frames(16384, 16384, 48) == 1
    assert choose_output("mp4", info(), 9).segment_frames(3840, 2160, 48) == 48
