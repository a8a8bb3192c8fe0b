"""Which encoder this machine has: it decides the bytes of segments."""

import io
import re
from fractions import Fraction

import av
from av.video.frame import VideoFrame

from services.common.errors import InternalError
from services.inference.video.x264 import repeatable_options

_VERSION = re.compile(rb"x264 - core (\d+[ \w.]*?) - ")


def encoder_facts() -> dict[str, str]:
    """Versions of PyAV, FFmpeg and x264, the last one as it signs what it encodes, and the options that this machine adds.

    Raises:
        InternalError: nothing can be encoded here.
    """
    found = _VERSION.search(_sample())
    if found is None:
        raise InternalError("libx264 doesn't say which version it is")
    added = " ".join(f"{name}={value}" for name, value in repeatable_options().items())
    return {"pyav": av.__version__, "ffmpeg": av.ffmpeg_version_info, "x264": found[1].decode(), "x264_options": added}


def _sample() -> bytes:
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        container.mux(stream.encode(VideoFrame(64, 48, "yuv420p")))
        container.mux(stream.encode(None))
    return buffer.getvalue()
