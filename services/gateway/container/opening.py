"""Open a source: only formats that can't refer to other files, and only its bytes."""

import contextlib
from collections.abc import Iterator
from typing import BinaryIO

import av
import av.error
import av.logging
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from services.common.errors import InvalidVideo

# Playlists, scripts and capture devices are demuxers too; they would open what their author names.
_FORMATS = (
    "mov", "matroska", "webm", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "nut", "ivf", "yuv4mpegpipe", "h264",
    "hevc", "vvc", "av1", "obu", "m4v", "h263", "vc1", "dv", "mxf", "gxf", "rm", "wtv", "gif", "apng", "dirac", "mjpeg",
    "png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "tiff_pipe", "exr_pipe", "jpegxl_pipe",
    "mp3", "wav", "w64", "flac", "aac", "ac3", "eac3", "aiff", "au", "caf", "ape", "tta", "wv", "srt", "ass", "webvtt",
)  # fmt: skip
_OPTIONS = {"format_whitelist": ",".join(_FORMATS), "protocol_whitelist": "file", "fflags": "+genpts"}
_REASONS = (
    ("moov atom not found", "it ends before its index (moov), so the recording or the upload was cut off; send the whole file"),
    ("EBML header", "its header is damaged; send the file again"),
)


@contextlib.contextmanager
def opened(source: str | BinaryIO, format: str | None = None) -> Iterator[InputContainer]:
    """The container in a file, by its path or opened; ``format``: only this demuxer. Raises InvalidVideo."""
    # Only here FFmpeg's words say why; later ones would fill our log with remarks on damaged packets.
    av.logging.set_level(av.logging.ERROR)
    with av.logging.Capture(local=False) as logs:
        try:
            file = "file:" + source if isinstance(source, str) else source
            container = av.open(file, "r", format=format, options=_OPTIONS, metadata_errors="replace")
        except av.error.FFmpegError as error:
            raise InvalidVideo(f"The file can't be read as a video: {_reason(logs, error)}.") from error
        finally:
            av.logging.set_level(None)
    with container:
        yield container


def _reason(logs: list[tuple[int, str, str]], error: av.error.FFmpegError) -> str:
    said = " ".join(text for _, _, text in logs)
    for sign, reason in _REASONS:
        if sign in said:
            return reason
    if isinstance(error, av.error.InvalidDataError | av.error.ArgumentError):
        return "it is in no video format that is known here, or damaged; send an mp4, mkv, mov, webm, avi or ts file"
    return f"{error.strerror}".rstrip(".").lower() or "unknown error"


def video_stream(container: InputContainer) -> VideoStream:
    """The stream to restore. Raises InvalidVideo."""
    found = container.streams.best("video")
    if isinstance(found, VideoStream) and not found.disposition & Disposition.attached_pic:
        if found.codec_context is None:
            raise InvalidVideo("The file's video codec is not known here; convert it to H.264, HEVC, VP9 or AV1.")
        return found
    if container.streams.audio:
        raise InvalidVideo("The file has sound but no video; send a file with a video stream.")
    raise InvalidVideo("The file has no video stream; send a file with one.")


@contextlib.contextmanager
def reading() -> Iterator[None]:
    """Turn what goes wrong while packets are read into InvalidVideo."""
    try:
        yield
    except av.error.FFmpegError as error:
        raise InvalidVideo(f"The file can't be read to its end: {error.strerror}.") from error
    except IndexError as error:
        # PyAV looks for the packet's stream among those that there were when the file was opened.
        raise InvalidVideo("The file can't be read to its end: a stream begins in its middle; it is damaged.") from error
