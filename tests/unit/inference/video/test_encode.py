import io
import itertools
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from services.common.media import SpanTask
from services.common.plan import Segment
from services.inference.video.encode import SpanEncoder
from tests.unit.inference.clips import TIME_BASE, Clip, decoded, make_clip, pattern, plan_for, read_clip, task_for

WIDTH, HEIGHT = 96, 64


def encode(task: SpanTask, threads: int = 1, batch: int = 5) -> dict[Segment, bytes]:
    """The pattern's frames as segments; the picture of a frame is that of its source index."""
    found: dict[Segment, bytes] = {}
    encoder = SpanEncoder(task, threads=threads, on_segment=lambda segment, data: found.update({segment: data}))
    deep = "10" in task.plan.output_pixel_format
    numbers = range(task.first_index, task.first_index + len(task.frame_pts))
    pictures = [pattern(i, WIDTH, HEIGHT, 65535) if deep else pattern(i, WIDTH, HEIGHT).astype(np.uint8) for i in numbers]
    for start in range(0, len(pictures), batch):
        assert not encoder.complete
        encoder.take(np.stack(pictures[start : start + batch]))
    assert encoder.complete
    return found


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(make_clip(frames=12))


def stamps_of(data: bytes) -> list[int]:
    return [f.pts for f in decoded(data) if f.pts is not None]


def test_every_segment_has_its_frames_with_their_source_time_stamps(clip: Clip):
    found = encode(task_for(clip, segment_frames=5))
    assert [(s.first, s.end) for s in found] == [(0, 5), (5, 10), (10, 12)]
    for segment, data in found.items():
        assert stamps_of(data) == list(clip.stamps[segment.first : segment.end])
        pictures = [f.to_ndarray(format="rgb24").astype(int) for f in decoded(data)]
        errors = [np.abs(p - pattern(segment.first + i, WIDTH, HEIGHT)).mean() for i, p in enumerate(pictures)]
        assert max(errors) < 2.5


@pytest.mark.parametrize("start", [0, 90000 * 3600 * 30, -700])
def test_irregular_time_stamps_are_kept_exactly(start: int):
    stamps = [start + s for s in (0, 512, 1024, 1700, 2000, 3000, 4000, 4100)]
    clip = read_clip(make_clip(frames=8, stamps=stamps, container="matroska", time_base=Fraction(1, 1000)))
    task = task_for(Clip(**{n: getattr(clip, n) for n in Clip.__slots__} | {"stamps": tuple(stamps), "time_base": TIME_BASE}))
    found = encode(task)
    assert [s for data in found.values() for s in stamps_of(data)] == stamps


@pytest.mark.parametrize("time_base", [Fraction(1001, 30000), Fraction(1, 1_000_000_000), Fraction(1, 90000), Fraction(1, 25)])
def test_time_bases_of_all_kinds_are_exact(clip: Clip, time_base: Fraction):
    stamps = tuple(2 * i * max(1, round(Fraction(1, 50) / time_base)) + i % 2 for i in range(12))
    task = task_for(Clip(**{n: getattr(clip, n) for n in Clip.__slots__} | {"stamps": stamps, "time_base": time_base}))
    for segment, data in encode(task).items():
        times = [f.pts * f.time_base for f in decoded(data) if f.pts is not None]
        assert times == [s * time_base for s in stamps[segment.first : segment.end]]


def test_every_segment_stands_alone_and_all_have_one_header(clip: Clip):
    headers = set()
    for data in encode(task_for(clip)).values():
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            headers.add(bytes(stream.codec_context.extradata or b""))
            packets = [p for p in container.demux(stream) if p.size]
        assert packets[0].is_keyframe
        assert all(p.pts >= packets[0].pts for p in packets)
    assert len(headers) == 1


def test_fragments_count_time_from_the_sources_beginning(clip: Clip):
    """A player that appends segments has nothing else to go by."""
    starts = [int.from_bytes(data[(at := data.index(b"tfdt")) + 8 : at + 16]) for data in encode(task_for(clip)).values()]
    assert all(b - a == 4 * 512 for a, b in itertools.pairwise(starts))


def test_the_same_frames_give_the_same_bytes_however_they_come(clip: Clip):
    task = task_for(clip)
    assert encode(task, batch=1) == encode(task, batch=12)


def test_stored_segments_are_passed_over(clip: Clip):
    whole, rest = encode(task_for(clip)), encode(task_for(clip, stored=[0, 8]))
    assert [s.first for s in rest] == [4]
    assert all(whole[segment] == data for segment, data in rest.items())


def test_context_is_not_encoded(clip: Clip):
    found = encode(task_for(clip, first=4, context=3))
    assert [(s.first, s.end) for s in found] == [(4, 8), (8, 12)]
    assert [s for data in found.values() for s in stamps_of(data)] == list(clip.stamps[4:])
    assert list(found.values()) == list(encode(task_for(clip, first=4)).values())


def test_more_than_eight_bits_stay_more_than_eight_bits():
    clip = read_clip(make_clip(frames=4, codec="libx265", pixel_format="yuv420p10le", options={"x265-params": "log-level=none"}))
    (data,) = encode(task_for(clip)).values()
    first = next(decoded(data))
    assert first.format.name == "yuv420p10le"
    assert len(np.unique(np.frombuffer(first.planes[0], np.uint16))) > 256


@pytest.mark.parametrize(
    ("source", "result"),
    [((2, 2, 2, 1), (2, 2, 6, 1)), ((1, 1, 1, 1), (1, 1, 1, 1)), ((9, 16, 9, 1), (9, 16, 9, 1)), ((1, 1, 1, 2), (1, 1, 1, 1))],
    ids=["unspecified", "bt709", "hdr", "full-range"],
)
def test_the_result_says_how_its_colours_are_meant(source: tuple[int, int, int, int], result: tuple[int, int, int, int]):
    clip = read_clip(make_clip(frames=4, colour=source))
    (data,) = encode(task_for(clip)).values()
    frame = next(decoded(data))
    assert tuple(map(int, (frame.color_primaries, frame.color_trc, frame.colorspace, frame.color_range))) == result


def test_the_plans_encoder_options_are_used(clip: Clip):
    plans = [plan_for(clip, encoder_options=(("crf", crf),)) for crf in ("4", "40")]
    fine, coarse = (sum(map(len, encode(task_for(clip, plan=plan)).values())) for plan in plans)
    assert fine > 1.5 * coarse


@pytest.mark.parametrize(("pixel_format", "dtype", "channels"), [("rgb24", np.uint8, 3), ("rgba64be", np.uint16, 4)])
def test_pictures_come_out_exactly(clip: Clip, pixel_format: str, dtype: type[np.unsignedinteger], channels: int):
    task = task_for(clip)
    options = (("compression_level", "3"), ("pred", "up"))
    plan = replace(task.plan, encoder="png", encoder_options=options, output_pixel_format=pixel_format, width=35, height=21)
    task = replace(task, plan=plan)
    frames = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (len(task.frame_pts), 21, 35, channels)).astype(dtype)
    found: dict[Segment, bytes] = {}
    encoder = SpanEncoder(task, threads=1, on_segment=lambda segment, data: found.update({segment: data}))
    encoder.take(frames)
    assert list(found) == list(task.segments)
    shown = [f for data in found.values() for f in decoded(data)]
    form = pixel_format.replace("be", "le")
    assert all(np.array_equal(f.reformat(format=form).to_ndarray(), wanted) for f, wanted in zip(shown, frames, strict=True))
    assert [f.pts for f in shown] == list(task.frame_pts)
