"""Make tiny videos with PyAV: every frame is told apart by its picture, every sound is a sine."""

import itertools
import math
import random
import struct
import zlib
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.container import OutputContainer
from av.packet import Packet
from av.video.frame import VideoFrame

_AUDIO_RATE, _AUDIO_FRAME = 48000, 960


def picture(number: int, width: int, height: int) -> np.ndarray:
    """A grey level that tells the frame's number, with a bar that moves."""
    image = np.full((height, width, 3), 16 + number * 5 % 224, np.uint8)
    left = number * 3 % (width - 8)
    image[: height // 2, left : left + 8] = (255, 64, 0)
    return image


def video(
    path: Path,
    *,
    frames: int = 24,
    size: tuple[int, int] = (64, 48),
    rate: int = 25,
    codec: str = "libx264",
    pixel_format: str = "yuv420p",
    stamps: Sequence[int] | None = None,
    time_base: Fraction | None = None,
    audio: str = "",
    subtitles: bool = False,
    rotation: int = 0,
    options: dict[str, str] | None = None,
    muxer: dict[str, str] | None = None,
    container: str | None = None,
    gop: int = 12,
) -> Path:
    """A video at ``path``; ``stamps`` in ``time_base`` make the frame rate variable, ``audio`` is a codec's name."""
    base = time_base or Fraction(1, rate)
    with av.open(str(path), "w", format=container, options=muxer or {}) as output:
        stream = output.add_stream(codec, rate=rate, options=options or {})
        stream.width, stream.height, stream.pix_fmt = *size, pixel_format
        stream.gop_size = gop
        stream.codec_context.thread_count = 1
        stream.codec_context.time_base = base
        if rotation:
            stream.set_display_rotation(rotation)
        sound = output.add_stream(audio, rate=_AUDIO_RATE, layout="mono") if audio else None
        text = output.add_mux_stream("subrip") if subtitles else None
        for number in range(frames):
            frame = VideoFrame.from_ndarray(picture(number, *size), "rgb24").reformat(format=pixel_format)
            frame.pts, frame.time_base = stamps[number] if stamps else number, base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            for samples in sine(frames / rate):
                output.mux(sound.encode(samples))
            output.mux(sound.encode(None))
        if text is not None:
            _subtitles(output, text, frames / rate)
    return path


def sine(seconds: float) -> Iterator[AudioFrame]:
    """440 Hz, mono."""
    samples = (np.sin(np.arange(int(_AUDIO_RATE * seconds)) * 2 * math.pi * 440 / _AUDIO_RATE) * 0.3).astype(np.float32)
    for start in range(0, len(samples), _AUDIO_FRAME):
        frame = AudioFrame.from_ndarray(samples[None, start : start + _AUDIO_FRAME], "fltp", "mono")
        frame.sample_rate, frame.pts, frame.time_base = _AUDIO_RATE, start, Fraction(1, _AUDIO_RATE)
        yield frame


def _subtitles(output: OutputContainer, stream: av.stream.Stream, seconds: float) -> None:
    for number in range(int(seconds * 2)):
        packet = Packet(f"line {number}".encode())
        packet.stream, packet.time_base = stream, Fraction(1, 1000)
        packet.pts = packet.dts = number * 500
        packet.duration = 400
        output.mux(packet)


def variable_stamps(frames: int) -> list[int]:
    """Irregular time stamps in 1/30000 s, about 25 frames a second."""
    steps = random.Random(7)
    return [0, *itertools.accumulate(steps.randint(400, 2000) for _ in range(frames - 1))]


def sound_only(path: Path) -> Path:
    """An MP4 with a second of sound."""
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=_AUDIO_RATE, layout="mono")
        for samples in sine(1.0):
            output.mux(stream.encode(samples))
        output.mux(stream.encode(None))
    return path


def image(path: Path) -> Path:
    """A PNG."""
    path.write_bytes(png(3))
    return path


def png(number: int) -> bytes:
    """The picture with this number."""
    encoder = av.CodecContext.create("png", "w")
    encoder.width, encoder.height, encoder.pix_fmt, encoder.time_base = 64, 48, "rgb24", Fraction(1, 25)
    frame = VideoFrame.from_ndarray(picture(number, 64, 48), "rgb24")
    return b"".join(bytes(p) for p in [*encoder.encode(frame), *encoder.encode(None)])


def truncated(path: Path, source: Path, fraction: float) -> Path:
    """The beginning of another file."""
    data = source.read_bytes()
    path.write_bytes(data[: int(len(data) * fraction)])
    return path


def without_frames(path: Path) -> Path:
    """An MP4 whose video stream has no packet."""
    with av.open(str(path), "w", options={"movflags": "empty_moov+frag_keyframe"}) as output:
        stream = output.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        output.start_encoding()
    return path


def with_huge_header(path: Path, source: Path, side: int) -> Path:
    """An uncompressed AVI whose header claims ``side`` by ``side`` pixels."""
    data = bytearray(source.read_bytes())
    at = data.index(b"strf") + 8
    struct.pack_into("<ii", data, at + 4, side, side)
    path.write_bytes(bytes(data))
    return path


def huge_picture(path: Path, side: int) -> Path:
    """A small PNG of ``side`` by ``side`` pixels: a decompression bomb."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packer, row = zlib.compressobj(1), bytes(side * 3 + 1)
    rows = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b""))
    return path
