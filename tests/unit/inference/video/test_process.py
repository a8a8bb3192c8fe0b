"""The process that decodes and encodes, with this test in the place of the rank."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import psutil
import pytest

from services.common.channel import Channel
from services.common.errors import InvalidVideo, ServiceError, SettingsError, Unavailable
from services.common.media import SpanTask
from services.gateway.encoding import encoder_options
from services.inference.frames import MAX_BATCH_FRAMES, Frames, frames_of, send_frames
from services.inference.messages import SegmentReady, StageTime, VideoDone
from services.inference.video.process import FramesLost, VideoLimits, VideoProcess, VideoProcesses
from tests.unit.inference.clips import Clip, decoded, make_clip, pattern, read_clip, task_for

LIMITS = VideoLimits(memory_bytes=8 << 30, cpu_s=60, encoder_threads=1)


@pytest.fixture(scope="module")
def clip() -> Clip:
    return read_clip(make_clip(frames=20))


@pytest.fixture(scope="module")
def large() -> Clip:
    return read_clip(make_clip(frames=2, width=4096, height=3000, options={"preset": "ultrafast"}))


class Rank:
    """Takes all frames, keeps them, and gives them back."""

    def __init__(self, path: Path, *, lost_after: int | None = None) -> None:
        self._path = path
        self._lost_after = lost_after
        self.batches: list[Frames] = []

    def run(self) -> None:
        with socket.socket(socket.AF_UNIX) as end:
            end.connect(str(self._path))
            channel = Channel(end)
            while (message := channel.receive()).kind == "frames":
                self.batches.append(frames_of(message))
                if len(self.batches) == self._lost_after:
                    return
                send_frames(channel, self.batches[-1])
            channel.send("end")


@contextlib.asynccontextmanager
async def opened(directory: Path, task: SpanTask, limits: VideoLimits = LIMITS) -> AsyncIterator[VideoProcess]:
    async with VideoProcesses(directory, limits).open(task) as process:
        yield process


async def feed(process: VideoProcess, clip: Clip) -> None:
    for packet in clip.packets:
        if not await process.put(packet):
            return
    await process.end()


async def run(
    directory: Path, task: SpanTask, clip: Clip, *, lost_after: int | None = None, limits: VideoLimits = LIMITS
) -> tuple[list[StageTime | SegmentReady | VideoDone], Rank]:
    async with opened(directory, task, limits) as process, asyncio.timeout(30):
        rank = Rank(process.path, lost_after=lost_after)
        working = asyncio.create_task(asyncio.to_thread(rank.run))
        feeding = asyncio.create_task(feed(process, clip))
        try:
            events = [event async for event in process.events()]
        finally:
            process.kill()
            await asyncio.gather(working, feeding, return_exceptions=True)
    return events, rank


async def test_a_whole_span(tmp_path: Path, clip: Clip):
    events, rank = await run(tmp_path, task_for(clip, first=3, end=19, context=3, segment_frames=7), clip)
    assert [len(b) for b in rank.batches] == [MAX_BATCH_FRAMES, MAX_BATCH_FRAMES, 3]
    segments = [e for e in events if isinstance(e, SegmentReady)]
    assert [(e.segment.first, e.segment.end) for e in segments] == [(3, 10), (10, 17), (17, 19)]
    assert [f.pts for e in segments for f in decoded(e.data)] == list(clip.stamps[3:19])
    assert events[-1] == VideoDone(concealed_frames=0)
    assert sum(e.frames for e in events if isinstance(e, StageTime) and e.stage == "decode") == 19
    assert list(tmp_path.iterdir()) == []


async def test_the_model_sees_the_pictures_of_the_plan(tmp_path: Path, clip: Clip):
    _, rank = await run(tmp_path, task_for(clip, first=5, end=9), clip)
    pictures = np.concatenate(rank.batches)
    errors = [np.abs(p.astype(int) - pattern(5 + i, 96, 64)).mean() for i, p in enumerate(pictures)]
    assert max(errors) < 2.5


async def test_ten_bit_sources_are_shown_in_sixteen_bits_and_stay_ten(tmp_path: Path):
    deep = read_clip(make_clip(frames=4, codec="libx265", pixel_format="yuv420p10le", options={"x265-params": "log-level=none"}))
    events, rank = await run(tmp_path, task_for(deep), deep)
    assert {b.dtype for b in rank.batches} == {np.dtype(np.uint16)}
    (segment,) = (e for e in events if isinstance(e, SegmentReady))
    assert next(decoded(segment.data)).format.name == "yuv420p10le"


async def test_variable_frame_rate_stays_variable(tmp_path: Path):
    stamps = [0, 300, 700, 1500, 1600, 4000, 4100, 9000]
    variable = read_clip(make_clip(frames=8, stamps=stamps))
    events, _ = await run(tmp_path, task_for(variable), variable)
    assert [f.pts for e in events if isinstance(e, SegmentReady) for f in decoded(e.data)] == stamps


async def test_large_frames_travel_one_by_one(tmp_path: Path, large: Clip):
    _, rank = await run(tmp_path, task_for(large), large)
    assert [len(b) for b in rank.batches] == [1, 1]


async def test_a_rank_that_leaves_is_not_the_videos_fault(tmp_path: Path, clip: Clip):
    with pytest.raises(FramesLost):
        await run(tmp_path, task_for(clip), clip, lost_after=1)


async def test_garbage_is_an_invalid_video(tmp_path: Path, clip: Clip):
    garbage = replace(clip, packets=tuple(replace(p, data=b"\x00" * 99) for p in clip.packets))
    with pytest.raises(InvalidVideo, match="None of the 20 frames"):
        await run(tmp_path, task_for(clip), garbage)


async def test_memory_and_time_are_limited(tmp_path: Path, clip: Clip):
    async with opened(tmp_path, task_for(clip), VideoLimits(memory_bytes=3 << 30, cpu_s=77, encoder_threads=1)):
        (child,) = (p for p in psutil.Process().children() if "services.inference.video.child" in p.cmdline())
        assert child.rlimit(psutil.RLIMIT_AS) == (3 << 30, 3 << 30)
        assert child.rlimit(psutil.RLIMIT_CPU)[0] == 77


async def test_a_video_that_is_too_large_for_the_limit_is_refused_in_words(tmp_path: Path, large: Clip):
    with pytest.raises(ServiceError) as caught:
        await run(tmp_path, task_for(large), large, limits=replace(LIMITS, memory_bytes=300 << 20))
    assert isinstance(caught.value, InvalidVideo), caught.value


async def test_a_cards_encoder_that_does_not_open_in_a_span_is_told_in_words(tmp_path: Path, clip: Clip):
    task = task_for(clip)
    plan = replace(task.plan, encoder="h264_nvenc", encoder_options=encoder_options("h264_nvenc", 14, "fast"))
    if await VideoProcesses(tmp_path, LIMITS).encoders():
        pytest.skip("NVENC opens on this machine")
    with pytest.raises(Unavailable, match=r"NVENC .* leave the encoder out for x264"):
        await run(tmp_path, replace(task, plan=plan), clip)


async def test_a_process_for_a_cards_encoder_has_limits_of_its_own(tmp_path: Path, clip: Clip):
    limits, task = replace(LIMITS, nvenc_memory_bytes=64 << 30), task_for(clip)
    for encoder, memory_bytes in (("libx264", 8 << 30), ("h264_nvenc", 64 << 30)):
        async with opened(tmp_path, replace(task, plan=replace(task.plan, encoder=encoder)), limits):
            (child,) = (p for p in psutil.Process().children() if "services.inference.video.child" in p.cmdline())
            assert child.rlimit(psutil.RLIMIT_AS) == (memory_bytes, memory_bytes)


async def test_where_trying_a_cards_encoder_ends_the_process_there_is_none(tmp_path: Path):
    assert await VideoProcesses(tmp_path, replace(LIMITS, memory_bytes=64 << 20)).encoders() == ()
    assert await VideoProcesses(tmp_path, LIMITS, "services.no_such_module").encoders() == ()


async def test_the_encoder_is_known(tmp_path: Path):
    facts = await VideoProcesses(tmp_path, LIMITS).facts()
    assert facts["encoder_threads"] == "1"
    assert {"pyav", "ffmpeg", "x264"} < set(facts)


async def test_a_path_that_no_socket_can_have_is_refused(tmp_path: Path):
    with pytest.raises(SettingsError, match="set TMPDIR to a shorter one"):
        VideoProcesses(tmp_path / ("x" * 90), LIMITS)


async def test_the_servers_side_needs_no_pyav():
    code = "import sys, services.inference.video.process; assert not {'av', 'torch'} & set(sys.modules), sorted(sys.modules)"
    process = await asyncio.create_subprocess_exec("python", "-c", code, executable=psutil.Process().exe())
    assert await process.wait() == 0
