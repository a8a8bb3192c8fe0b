from dataclasses import replace

import numpy as np
import pytest
from av.video.frame import VideoFrame

from services.common.media import CodecParameters
from services.inference.video.colour import FrameReader, FrameWriter, colours_of

SMALL = CodecParameters(codec="h264", extradata=b"", width=32, height=32, pixel_format="yuv420p")
_WEIGHTS = {1: (0.2126, 0.0722), 6: (0.299, 0.114), 9: (0.2627, 0.0593)}
_SAMPLES = [(180, 100, 160), (60, 140, 110), (120, 128, 128), (235, 128, 128), (16, 128, 128)]


def flat(pixel_format: str, samples: tuple[int, ...], scale: int = 1) -> VideoFrame:
    frame = VideoFrame(32, 32, pixel_format)
    for plane, value in zip(frame.planes, samples, strict=False):
        dtype = np.uint16 if scale > 1 else np.uint8
        plane.update(np.full((plane.height, plane.line_size // np.dtype(dtype).itemsize), value * scale, dtype))
    return frame


def expected(samples: tuple[int, int, int], matrix: int, *, full: bool) -> np.ndarray:
    """RGB from 0 to 1 by ITU-T H.273."""
    kr, kb = _WEIGHTS[matrix]
    y = samples[0] / 255 if full else (samples[0] - 16) / 219
    cb, cr = ((c - 128) / (255 if full else 224) for c in samples[1:])
    red, blue = y + 2 * (1 - kr) * cr, y + 2 * (1 - kb) * cb
    return np.clip([red, (y - kr * red - kb * blue) / (1 - kr - kb), blue], 0, 1)


@pytest.mark.parametrize("samples", _SAMPLES)
@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("matrix", [1, 6, 9])
def test_rgb_is_what_the_streams_matrix_and_range_say(matrix: int, full: bool, samples: tuple[int, int, int]):
    codec = replace(SMALL, colour_matrix=matrix, colour_range=2 if full else 1)
    picture = FrameReader(colours_of(codec), 32, 32, 8).picture(flat("yuv420p", samples))
    assert picture.shape == (32, 32, 3)
    assert np.abs(picture[7, 9] / 255 - expected(samples, matrix, full=full)).max() < 1.6 / 255


@pytest.mark.parametrize("samples", _SAMPLES)
def test_ten_bits_become_sixteen_without_loss(samples: tuple[int, int, int]):
    codec = replace(SMALL, colour_matrix=9, pixel_format="yuv420p10le")
    colours = colours_of(codec)
    picture = FrameReader(colours, 32, 32, 16).picture(flat("yuv420p10le", samples, 4))
    assert picture.dtype == np.uint16
    assert np.abs(picture[7, 9] / 65535 - expected(samples, 9, full=False)).max() < 0.6 / 1023
    frame = FrameWriter(colours, "yuv420p10le").frame(picture)
    assert [int(np.frombuffer(p, np.uint16)[0]) for p in frame.planes] == pytest.approx([s * 4 for s in samples], abs=1)


@pytest.mark.parametrize("samples", _SAMPLES)
def test_there_and_back_gives_the_same_samples(samples: tuple[int, int, int]):
    colours = colours_of(replace(SMALL, colour_matrix=1))
    picture = FrameReader(colours, 32, 32, 8).picture(flat("yuv420p", samples))
    frame = FrameWriter(colours, "yuv420p").frame(picture)
    assert [bytes(p)[0] for p in frame.planes] == pytest.approx(samples, abs=1)


def test_without_a_word_of_the_stream_the_height_decides():
    assert colours_of(replace(SMALL, height=576)).matrix == 6
    assert colours_of(replace(SMALL, height=720)).matrix == 1


@pytest.mark.parametrize("matrix", [0, 3, 8, 14])
def test_matrices_that_the_scaler_does_not_know_are_taken_for_unspecified(matrix: int):
    frame = flat("yuv420p", (120, 100, 160))
    frame.colorspace = matrix
    codec = replace(SMALL, colour_matrix=matrix)
    picture = FrameReader(colours_of(codec), 32, 32, 8).picture(frame)
    assert np.abs(picture[7, 9] / 255 - expected((120, 100, 160), 6, full=False)).max() < 1.6 / 255


def test_limited_range_grey_is_spread_like_colour():
    picture = FrameReader(colours_of(replace(SMALL, pixel_format="gray", colour_range=1)), 32, 32, 8).picture(flat("gray", (16,)))
    assert picture[3, 3].tolist() == [0, 0, 0]


def test_rgb_sources_stay_as_they_are():
    codec = replace(SMALL, pixel_format="gbrp", colour_matrix=0)
    picture = FrameReader(colours_of(codec), 32, 32, 8).picture(flat("gbrp", (10, 200, 128)))
    assert picture[3, 3].tolist() == [128, 10, 200]


def test_a_frame_of_another_size_is_scaled_to_the_streams():
    picture = FrameReader(colours_of(SMALL), 48, 20, 8).picture(flat("yuv420p", (120, 128, 128)))
    assert picture.shape == (20, 48, 3)


def whole(picture: np.ndarray, pixel_format: str) -> VideoFrame:
    return FrameWriter(colours_of(SMALL), pixel_format).frame(picture)


@pytest.mark.parametrize(
    ("pixel_format", "dtype", "channels"),
    [("rgb24", np.uint8, 3), ("rgba", np.uint8, 4), ("rgb48be", np.uint16, 3), ("rgba64be", np.uint16, 4)],
)
def test_rgb_is_not_touched_on_its_way_in_and_out(pixel_format: str, dtype: type[np.unsignedinteger], channels: int):
    picture = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (32, 32, channels)).astype(dtype)
    frame = whole(picture, pixel_format)
    assert frame.format.name == pixel_format
    codec = replace(SMALL, pixel_format=pixel_format, colour_range=2)
    reader = FrameReader(colours_of(codec), 32, 32, np.iinfo(dtype).bits, alpha=channels == 4)
    assert np.array_equal(reader.picture(frame), picture)


def test_a_source_without_transparency_is_opaque_where_it_is_wanted():
    picture = FrameReader(colours_of(SMALL), 32, 32, 8, alpha=True).picture(flat("yuv420p", (120, 128, 128)))
    assert picture.shape == (32, 32, 4)
    assert (picture[..., 3] == 255).all()


@pytest.mark.parametrize(
    ("pixel_format", "bits", "scale"), [("yuva444p", 8, 1), ("yuva444p10le", 10, 4), ("yuva444p12le", 12, 16)]
)
def test_transparency_of_a_video_is_read_to_its_ends(pixel_format: str, bits: int, scale: int):
    top = (1 << bits) - 1
    for value, wanted in ((0, 0), (top, 65535 if bits > 8 else 255)):
        frame = VideoFrame(32, 32, pixel_format)
        for plane, sample in zip(frame.planes, (120 * scale, 128 * scale, 128 * scale, value), strict=True):
            dtype = np.uint16 if bits > 8 else np.uint8
            plane.update(np.full((plane.height, plane.line_size // np.dtype(dtype).itemsize), sample, dtype))
        picture = FrameReader(colours_of(SMALL), 32, 32, 16 if bits > 8 else 8, alpha=True).picture(frame)
        assert (picture[..., 3] == wanted).all()
