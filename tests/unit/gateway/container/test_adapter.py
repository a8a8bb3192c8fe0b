"""The child processes on real files, good and hostile."""

import asyncio
import contextlib
import os
import random
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.frame import VideoFrame

from services.common.errors import InternalError, InvalidVideo
from services.common.media import SpanTask
from services.common.plan import RestorePlan, Segment
from services.gateway.container.adapter import Container, ContainerLimits
from services.gateway.ports import JoinTask
from services.gateway.source import SourceIndex, SourceInfo
from tests.clips import make
from tests.integration.echo_worker import encoded, matched
from tests.unit.gateway.container.looking import LIMITS, look


def frames_shown(path: Path) -> list[np.ndarray]:
    """What a player shows, from the first keyframe on."""
    with av.open(str(path)) as container:
        return [f.to_ndarray(format="gray") for f in container.decode(video=0)]


CLIPS: dict[str, Callable[[Path], Path]] = {
    "b-frames.mp4": lambda p: make.video(p),
    "open-gop.mp4": lambda p: make.video(p, options={"x264-params": "open-gop=1:keyint=8:min-keyint=4:scenecut=0:bframes=3"}),
    "variable.mkv": lambda p: make.video(p, stamps=make.variable_stamps(24), time_base=Fraction(1, 30000)),
    "b-frames.avi": lambda p: make.video(p, codec="mpeg4", options={"bf": "2"}),
    "h264.avi": lambda p: make.video(p),
    "raw.h264": lambda p: make.video(p, container="h264"),
    "broadcast.ts": lambda p: make.video(p, audio="aac"),
    "vp9.webm": lambda p: make.video(p, codec="libvpx-vp9"),
    "hevc.mp4": lambda p: make.video(p, codec="libx265", options={"x265-params": "log-level=none"}),
    "picture.gif": lambda p: make.video(p, codec="gif", pixel_format="rgb8"),
}


@pytest.mark.parametrize("name", CLIPS)
async def test_the_packets_of_a_span_decode_to_its_frames(container: Container, tmp_path: Path, name: str):
    path = CLIPS[name](tmp_path / name)
    info, index = await look(container, path)
    shown = frames_shown(path)
    assert index.frames == len(shown)
    first, end = 13, 21
    # Where frames are counted, work begins at the keyframe.
    begin = index.keyframe_before(first).frame if index.by_order else first
    packets = [p async for p in container.read(path, info, index, begin, end)]
    assert len(packets) < 24 or name == "picture.gif"
    found = matched(task(info, index, begin, end), packets)[first - begin :]
    for frame, wanted in zip(found, shown[first:end], strict=True):
        np.testing.assert_array_equal(frame.to_ndarray(format="gray"), wanted)


def task(info: SourceInfo, index: SourceIndex, first: int, end: int) -> SpanTask:
    plan = RestorePlan(
        model="m", model_hash="", fingerprint="", dtype="", weight_format="", width=64, height=48, seed=1,
        encoder_options=(("crf", "14"), ("preset", "veryfast")),
    )  # fmt: skip
    return SpanTask(
        job_id="j", span=0, request_id="r", codec=info.codec, time_base=info.time_base, first_index=first,
        frame_pts=index.pts[first:end], last_duration=1, by_order=index.by_order, context_frames=0, segments=(),
        stored=frozenset(), plan=plan,
    )  # fmt: skip


async def test_a_file_says_what_it_holds(container: Container, tmp_path: Path):
    path = make.video(tmp_path / "a.mkv", audio="aac", subtitles=True)
    info = await container.probe(path)
    assert (info.codec.codec, info.codec.width, info.codec.height, info.bits) == ("h264", 64, 48, 8)
    assert [(s.kind, s.codec) for s in info.others] == [("audio", "aac"), ("subtitle", "subrip")]
    assert (info.image, info.origin_free, info.interlaced) == (False, False, False)


async def test_a_turned_video_says_how_it_is_turned(container: Container, tmp_path: Path):
    path = make.video(tmp_path / "a.mp4", rotation=90)
    info, index = await look(container, path)
    assert info.codec.rotation == 90
    assert len(info.display_matrix) == 9
    picture = await container.picture(path, info, index, 0, size=(128, 96), max_side=0)
    assert (picture.width, picture.height) == (96, 128)


async def test_a_deep_video_says_its_bits(container: Container, tmp_path: Path):
    assert (await container.probe(make.video(tmp_path / "a.mp4", pixel_format="yuv420p10le"))).bits == 10


async def test_a_picture_is_a_video_of_one_frame(container: Container, tmp_path: Path):
    info, index = await look(container, make.image(tmp_path / "a.png"))
    assert (info.image, index.frames) == (True, 1)


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "text": (lambda p: p.write_text("Dear reader,\n" * 500), "no video format that is known"),
    "zeros": (lambda p: p.write_bytes(bytes(100_000)), "no video format that is known"),
    "noise": (lambda p: p.write_bytes(random.Random(5).randbytes(100_000)), "can't be"),
    "concat script": (lambda p: p.write_text(f"ffconcat version 1.0\nfile {p.parent}/good.mp4\n"), "no video format"),
    "playlist": (lambda p: p.write_text("#EXTM3U\n#EXTINF:1,\ngood.mp4\n#EXT-X-ENDLIST\n"), "no video format"),
    "sound": (lambda p: make.sound_only(p.with_suffix(".mp4")).rename(p), "has sound but no video"),
    "no frames": (lambda p: make.without_frames(p.with_suffix(".mp4")).rename(p), "without a single frame"),
    "cut before its index": (lambda p: make.truncated(p, p.parent / "good.mp4", 0.5), "ends before its index"),
    "huge frames": (lambda p: make.with_huge_header(p, p.parent / "raw.avi", 9000), "9000×9000 pixels"),
    "absurd frames": (lambda p: make.with_huge_header(p, p.parent / "raw.avi", 30000), "absurd dimensions"),
    "huge picture": (lambda p: make.huge_picture(p, 3000), "3000×3000 pixels"),
}


@pytest.mark.parametrize("name", BAD)
async def test_a_bad_file_is_refused_in_words(container: Container, tmp_path: Path, name: str):
    make.video(tmp_path / "good.mp4")
    make.video(tmp_path / "raw.avi", codec="rawvideo", frames=2)
    spoil, text = BAD[name]
    spoil(tmp_path / "bad")
    with pytest.raises(InvalidVideo, match=text):
        await look(container, tmp_path / "bad")


@pytest.mark.parametrize(("name", "muxer"), [("a.mp4", {"movflags": "faststart"}), ("a.mkv", {})])
async def test_of_a_file_that_ends_early_the_beginning_is_taken(
    container: Container, tmp_path: Path, name: str, muxer: dict[str, str]
):
    whole = make.video(tmp_path / name, frames=60, muxer=muxer, gop=6)
    path = make.truncated(tmp_path / f"cut-{name}", whole, 0.6)
    info, index = await look(container, path)
    assert 10 < index.frames < 60
    assert "ends early" in index.warnings[0]
    packets = [p async for p in container.read(path, info, index, 0, index.frames)]
    assert len(matched(task(info, index, 0, index.frames), packets)) == index.frames


@pytest.mark.parametrize("at", [200, 2000, 4000])
async def test_damage_in_the_middle_never_kills_more_than_a_child(container: Container, tmp_path: Path, at: int):
    data = bytearray(make.video(tmp_path / "a.mp4", frames=60).read_bytes())
    data[at : at + 400] = random.Random(at).randbytes(400)
    (tmp_path / "bad.mp4").write_bytes(data)
    with contextlib.suppress(InvalidVideo):
        info, index = await look(container, tmp_path / "bad.mp4")
        assert [p async for p in container.read(tmp_path / "bad.mp4", info, index, 0, index.frames)]
    assert (await look(container, tmp_path / "a.mp4"))[1].frames == 60


@pytest.mark.parametrize("changes", [{"memory_bytes": 350 << 20}, {"silence_s": 0.2}], ids=["memory", "silence"])
async def test_a_file_that_needs_too_much_is_refused_in_words(tmp_path: Path, changes: dict[str, int]):
    values = {name: getattr(LIMITS, name) for name in ContainerLimits.__slots__} | {"max_pixels": 1 << 40} | changes
    path = make.huge_picture(tmp_path / "huge.png", 9000)
    with pytest.raises(InvalidVideo):
        await Container(ContainerLimits(**values)).probe(path)


async def test_a_reader_that_goes_away_ends_the_child(container: Container, tmp_path: Path):
    path = make.video(tmp_path / "a.mp4", frames=60)
    info, index = await look(container, path)
    packets = container.read(path, info, index, 0, 60)
    await anext(packets)
    await packets.aclose()
    children = (Path("/proc/self/task") / str(os.getpid()) / "children").read_text().split()
    names = [(Path("/proc") / child / "cmdline").read_bytes() for child in children]
    assert not any(b"services.gateway.container.child" in name for name in names)


async def test_a_frame_is_given_as_a_png_of_the_size_that_was_asked_for(container: Container, tmp_path: Path):
    path = make.video(tmp_path / "a.mp4")
    info, index = await look(container, path)
    picture = await container.picture(path, info, index, 17, size=(128, 96), max_side=64)
    assert (picture.width, picture.height) == (64, 48)
    decoded = next(av.open(_file(tmp_path, picture.data)).decode(video=0))
    grey = make.picture(17, 64, 48)[-1, 0, 0]
    assert abs(int(decoded.to_ndarray(format="rgb24")[-1, 0, 0]) - int(grey)) <= 3


def _file(directory: Path, data: bytes) -> str:
    (directory / "x.png").write_bytes(data)
    return str(directory / "x.png")


async def test_a_picture_that_is_too_large_for_a_message_is_made_smaller(container: Container, tmp_path: Path):
    path = tmp_path / "noise.avi"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("rawvideo", rate=25)
        stream.width, stream.height, stream.pix_fmt = 1600, 1200, "bgr24"
        noise = np.random.default_rng(1).integers(0, 255, (1200, 1600, 3), np.uint8)
        output.mux(stream.encode(VideoFrame.from_ndarray(noise, "bgr24")))
    info, index = await look(container, path)
    picture = await container.picture(path, info, index, 0, size=(1600, 1200), max_side=0)
    assert len(picture.data) <= 3 << 20
    assert picture.width > 500


# ---- joining ----


async def join(
    container: Container, path: Path, output: Path, cuts: tuple[int, ...], kind: str = "mp4", *, encoder: str = "libx264",
    **changes: object,
):  # fmt: skip
    info, index = await look(container, path)
    packets = [p async for p in container.read(path, info, index, 0, index.frames)]
    work = task(info, index, 0, index.frames)
    if encoder != "libx264":
        work = replace(work, plan=replace(work.plan, encoder=encoder, encoder_options=()))
    frames, at, names = matched(work, packets), 0, []
    for number, count in enumerate(cuts):
        names.append(path.with_name(f"{number}.seg.mp4"))
        names[-1].write_bytes(encoded(work, Segment(first=at, end=at + count), frames))
        at += count

    @asynccontextmanager
    async def segment(number: int) -> AsyncIterator[Path]:
        yield names[number]

    values: dict[str, object] = {
        "source": path, "output": output, "container": kind, "time_base": info.time_base, "pts": index.pts,
        "last_duration": index.last_duration, "shift": 0, "cut": False, "end": None, "counts": cuts,
        "copied": tuple(s.index for s in info.others), "display_matrix": info.display_matrix, **changes,
    }  # fmt: skip
    return info, index, await container.join(JoinTask(**values), segment, lambda _: None)


async def test_segments_are_joined_with_the_sources_time_stamps_and_sound(container: Container, tmp_path: Path):
    path = make.video(tmp_path / "a.mp4", stamps=make.variable_stamps(24), time_base=Fraction(1, 30000), audio="aac", rotation=90)
    info, index, joined = await join(container, path, tmp_path / "out.mp4", (10, 10, 4))
    assert [(c.name, c.passed) for c in joined.checks] == [("frame_count", True), ("time_stamps", True), ("audio_packets", True)]
    again, result = await look(container, tmp_path / "out.mp4")
    assert [p * again.time_base for p in result.pts] == [p * info.time_base for p in index.pts]
    assert again.codec.rotation == 90
    assert (joined.frames, joined.size_bytes) == (24, (tmp_path / "out.mp4").stat().st_size)
    grey = [int(f[-1, 0]) for f in frames_shown(tmp_path / "out.mp4")]
    assert grey == pytest.approx([int(f[-1, 0]) for f in frames_shown(path)], abs=3)


async def test_joined_hevc_has_the_name_that_all_players_know(container: Container, tmp_path: Path):
    path = make.video(tmp_path / "a.mp4")
    _, _, joined = await join(container, path, tmp_path / "out.mp4", (10, 10, 4), encoder="libx265")
    assert all(check.passed for check in joined.checks)
    data = (tmp_path / "out.mp4").read_bytes()
    assert (b"hvc1" in data, b"hev1" in data) == (True, False)
    assert len(frames_shown(tmp_path / "out.mp4")) == 24


async def test_a_result_begins_with_its_index_so_that_it_plays_at_once(container: Container, tmp_path: Path):
    await join(container, make.video(tmp_path / "a.mp4"), tmp_path / "out.mp4", (24,))
    data = (tmp_path / "out.mp4").read_bytes()
    assert data.index(b"moov") < data.index(b"mdat")


async def test_metadata_languages_and_chapters_are_kept(container: Container, tmp_path: Path):
    path, tagged = make.video(tmp_path / "a.mkv", audio="aac", frames=50), tmp_path / "tagged.mkv"
    with av.open(str(path)) as source, av.open(str(tagged), "w") as output:
        streams = {s.index: output.add_stream_from_template(s) for s in source.streams}
        output.metadata["title"] = "A film"
        streams[1].metadata["language"] = "deu"
        output.set_chapters([{"id": 1, "start": 500, "end": 1500, "time_base": Fraction(1, 1000), "metadata": {"title": "Two"}}])
        for packet in source.demux():
            if packet.size:
                packet.stream = streams[packet.stream_index]
                output.mux(packet)
    for kind in ("mp4", "mkv"):
        out = tmp_path / f"out.{kind}"
        await join(container, tagged, out, (50,), kind)
        with av.open(str(out)) as result:
            assert result.metadata["title"] == "A film"
            assert result.streams.audio[0].language == "deu"
            chapter = result.chapters()[-1]
            assert chapter["start"] * chapter["time_base"] == Fraction(1, 2)
            assert chapter["metadata"]["title"] == "Two"


async def test_a_range_has_its_part_of_the_sound_and_begins_at_zero(container: Container, tmp_path: Path):
    path = make.video(tmp_path / "a.mp4", frames=50, audio="aac")
    _, index = await look(container, path)
    cut = {"pts": index.pts[10:34], "shift": index.pts[10], "cut": True, "end": index.pts[34]}
    _, _, joined = await join(container, path, tmp_path / "out.mp4", (24,), **cut)
    assert all(check.passed for check in joined.checks)
    with av.open(str(tmp_path / "out.mp4")) as result:
        sound = [p for p in result.demux(audio=0) if p.size]
        assert result.start_time == pytest.approx(0, abs=25_000)
        assert sum(p.duration * p.time_base for p in sound) == pytest.approx(0.96, abs=0.03)


async def test_a_segment_that_is_not_whole_is_named(container: Container, tmp_path: Path):
    path = make.video(tmp_path / "a.mp4")
    with pytest.raises(InternalError) as error:
        await join(container, path, tmp_path / "out.mp4", (10, 14), counts=(10, 13))
    assert error.value.field == "1"


async def test_an_output_that_can_not_be_written_is_no_fault_of_the_video(container: Container, tmp_path: Path):
    path = make.video(tmp_path / "a.mp4")
    with pytest.raises(InternalError):
        await join(container, path, tmp_path / "missing/out.mp4", (24,))


async def test_only_so_many_children_run_at_a_time(tmp_path: Path):
    path = make.video(tmp_path / "a.mp4")
    container = Container(ContainerLimits(**{n: getattr(LIMITS, n) for n in ContainerLimits.__slots__} | {"processes": 1}))
    infos = await asyncio.gather(*(container.probe(path) for _ in range(3)))
    assert len({info.codec.codec for info in infos}) == 1
