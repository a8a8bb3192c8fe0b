"""A part of a video by time: pictures, sound and subtitles begin and end together, also with B-frames and compressed sound."""

import math
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import pytest_asyncio
from av.audio.frame import AudioFrame
from av.packet import Packet

from services.common.client import GatewayClient
from tests.clips.make import picture
from tests.integration.gateway_calls import downloaded, finished, packets, request, stamps
from tests.integration.processes import echo_worker, gateway, running

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

SECONDS, RATE, SOUND_RATE = 6, 25, 48000
START, END = Fraction(202, 100), Fraction(351, 100)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def client(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[GatewayClient]:
    directory = tmp_path_factory.mktemp("service")
    worker = echo_worker(directory / "worker")
    async with running(worker):
        process = gateway(directory / "gateway", worker)
        async with running(process), GatewayClient(process.address) as client:
            yield client


def _chirp() -> np.ndarray:
    """A tone that rises all the time, so that each moment sounds different."""
    times = np.arange(SECONDS * SOUND_RATE) / SOUND_RATE
    return (0.4 * np.sin(2 * math.pi * (300 * times + 150 * times**2))).astype(np.float32)


def _film(path: Path) -> Path:
    with av.open(str(path), "w") as output:
        video = output.add_stream("libx264", rate=RATE, options={"bf": "3", "g": "40", "sc_threshold": "0"})
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.thread_count = 1
        sound = output.add_stream("aac", rate=SOUND_RATE, layout="mono")
        text = output.add_mux_stream("subrip") if path.suffix == ".mkv" else None
        for number in range(SECONDS * RATE):
            frame = av.VideoFrame.from_ndarray(picture(number, 64, 48), "rgb24")
            frame.pts, frame.time_base = number, Fraction(1, RATE)
            output.mux(video.encode(frame))
        output.mux(video.encode(None))
        samples = _chirp()
        for begin in range(0, len(samples), 1024):
            block = AudioFrame.from_ndarray(samples[None, begin : begin + 1024], "fltp", "mono")
            block.sample_rate, block.pts, block.time_base = SOUND_RATE, begin, Fraction(1, SOUND_RATE)
            output.mux(sound.encode(block))
        output.mux(sound.encode(None))
        for number in range(SECONDS if text is not None else 0):
            line = Packet(f"line {number}".encode())
            line.stream, line.time_base = text, Fraction(1, 1000)
            line.pts = line.dts = 1000 * number
            line.duration = 900
            output.mux(line)
    return path


def _frequency(path: Path, at_s: float) -> float:
    """Of the sound around a moment, in hertz, by its zero crossings."""
    with av.open(str(path)) as container:
        found = np.zeros((SECONDS + 1) * SOUND_RATE, np.float32)
        for frame in container.decode(audio=0):
            begin = round(float(frame.pts * frame.time_base) * SOUND_RATE)
            data = frame.to_ndarray()[0]
            if begin >= 0:
                found[begin : begin + len(data)] = data
    window = found[round((at_s - 0.05) * SOUND_RATE) : round((at_s + 0.05) * SOUND_RATE)]
    crossings = np.flatnonzero((window[:-1] < 0) & (window[1:] >= 0))
    return float((len(crossings) - 1) * SOUND_RATE / (crossings[-1] - crossings[0]))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
async def test_a_time_range_has_its_own_pictures_and_sound(client: GatewayClient, tmp_path: Path, suffix: str):
    source = _film(tmp_path / f"film.{suffix}")
    upload = await client.upload_file(source)
    wanted = request(upload, container=suffix)
    wanted.range.time.start.FromNanoseconds(int(START * 10**9))
    wanted.range.time.end.FromNanoseconds(int(END * 10**9))
    job = await finished(client, (await client.create_job(wanted, f"range-{suffix}")).job_id)
    result = await downloaded(client, job.job_id, tmp_path / f"part.{suffix}")
    first, end = math.ceil(START * RATE), math.ceil(END * RATE)
    assert (job.plan.first_frame, job.result.frames) == (first, end - first)
    shown = stamps(result)
    assert (float(shown[0]), len(shown)) == (0, end - first)
    assert float(shown[-1]) == pytest.approx((end - 1 - first) / RATE, abs=0.001)
    # The sound at each moment is that of the source at the same moment.
    for at_s in (0.2, 0.7, 1.2):
        assert _frequency(result, at_s) == pytest.approx(_frequency(source, at_s + first / RATE), abs=1.0)
    sound = [float(at) for at, _ in packets(result, "audio")]
    assert 0 <= sound[0] < 1024 / SOUND_RATE + 0.001
    assert (end - first) / RATE - 2 * 1024 / SOUND_RATE < sound[-1] < (end - first) / RATE
    assert not [check for check in (await client.quality_report(job.job_id)).checks if not check.passed]


async def test_a_subtitle_that_is_shown_when_the_range_begins_is_shown_from_its_first_frame(
    client: GatewayClient, tmp_path: Path
):
    upload = await client.upload_file(_film(tmp_path / "film.mkv"))
    wanted = request(upload, container="mkv")
    wanted.range.time.start.FromNanoseconds(int(Fraction(25, 10) * 10**9))
    wanted.range.time.end.FromNanoseconds(int(Fraction(42, 10) * 10**9))
    job = await finished(client, (await client.create_job(wanted, "subtitles")).job_id)
    result = await downloaded(client, job.job_id, tmp_path / "part.mkv")
    with av.open(str(result)) as container:
        lines = [
            (bytes(p), float(p.pts * p.time_base), float(p.duration * p.time_base))
            for p in container.demux(subtitles=0)
            if p.size
        ]
    shown = {line: (at_s, at_s + for_s) for line, at_s, for_s in lines}
    first_s = math.ceil(2.5 * RATE) / RATE
    assert shown == {
        b"line 2": (0.0, pytest.approx(2.9 - first_s, abs=0.002)),
        b"line 3": (pytest.approx(3 - first_s, abs=0.002), pytest.approx(3.9 - first_s, abs=0.002)),
        b"line 4": (pytest.approx(4 - first_s, abs=0.002), pytest.approx(4.2 - first_s, abs=0.002)),
    }
